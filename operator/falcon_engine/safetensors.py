"""What a checkpoint says of itself without its weights: config.json, hf_quant_config.json, index and file headers."""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"
# ModelOpt's own file; vLLM reads it only where config.json has no quantization_config.
BESIDE = "hf_quant_config.json"
INDEX = "model.safetensors.index.json"
# A header lists names and offsets; a longer one is not a header.
_HEADER_LIMIT = 100 << 20
_JSON_LIMIT = 64 << 20
# Enough for the header of most shards, so that one read does.
_FIRST_READ = 1 << 16
_NEEDED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_POINTER = b"version https://git-lfs"
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64"), 64),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor as a file's header describes it: safetensors' name of its type, its sizes, its file's name."""

    dtype: str
    shape: tuple[int, ...]
    file: str


@dataclass(frozen=True)
class Trouble:
    """A file that cannot be used. `what` is the end of a sentence on the directory, such as `has a cut weight file`.

    `kind` is `absent`, `permission`, `pointer` (of Git LFS), `damaged` or `index`.
    """

    file: str
    kind: str
    what: str


@dataclass(frozen=True, eq=False)
class Files:
    """The metadata of one directory, read once.

    `config` and `beside` are None where the file is not there or is no JSON object. `elsewhere` has what an index says
    wrongly: tensor -> the file that it names. `twice` has further copies of a tensor. `bytes_read` is what was read.
    """

    directory: Path
    config: Mapping[str, Any] | None
    beside: Mapping[str, Any] | None
    tensors: Mapping[str, Tensor]
    elsewhere: Mapping[str, str]
    twice: Mapping[str, Tensor]
    troubles: tuple[Trouble, ...]
    bytes_read: int
    _stamps: Mapping[Path, tuple[int, ...] | None]

    @property
    def weights_trouble(self) -> Trouble | None:
        """The first of the troubles that is not of a JSON file of the model's."""
        return next((t for t in self.troubles if t.file not in (CONFIG, BESIDE)), None)

    def changed(self) -> str | None:
        """The name of a file that is no longer what was read; None where all are."""
        return next((path.name for path, stamp in self._stamps.items() if _stamp(path) != stamp), None)


def read(directory: Path) -> Files:
    """Read a directory's metadata. Whatever is in the files, this does not raise: troubles are in the result."""
    reader = _Reader(directory)
    config, beside = reader.object(CONFIG), reader.object(BESIDE)
    if config is None and not any(t.file == CONFIG for t in reader.troubles):
        reader.trouble(CONFIG, "absent", f"holds no {CONFIG}")
    shards, index = reader.shards()
    tensors: dict[str, Tensor] = {}
    twice: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in reader.header(shard):
            if name in tensors:
                twice[name] = tensor
            else:
                tensors[name] = tensor
    elsewhere: dict[str, str] = {}
    if not any(t.file != CONFIG and t.file != BESIDE for t in reader.troubles):
        held = {(name, tensor.file) for each in (tensors, twice) for name, tensor in each.items()}
        elsewhere = {name: shard for name, shard in index.items() if (name, shard) not in held}
        reader.pointers()
    return Files(
        directory, config, beside, tensors, elsewhere, twice, tuple(reader.troubles), reader.bytes, reader.stamps
    )


class _Reader:
    """Reads files of one directory; keeps what was wrong and what each file was like."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.troubles: list[Trouble] = []
        self.stamps: dict[Path, tuple[int, ...] | None] = {}
        self.bytes = 0

    def trouble(self, file: str, kind: str, what: str) -> None:
        self.troubles.append(Trouble(file, kind, what))

    def object(self, name: str) -> dict[str, Any] | None:
        """A JSON file's object; None, and perhaps a trouble, where there is none."""
        data = self._start(name, _JSON_LIMIT + 1)
        if data is None:
            return None
        if data.startswith(_POINTER):
            self.trouble(name, "pointer", f"holds only a Git LFS pointer in place of {name}")
            return None
        try:
            content = json.loads(data) if len(data) <= _JSON_LIMIT else None
        except (ValueError, RecursionError) as e:
            self.trouble(name, "damaged", f"has a {name} that is not JSON ({str(e)[:100]})")
            return None
        if not isinstance(content, dict):
            self.trouble(name, "damaged", f"has a {name} that is not a JSON object")
            return None
        return content

    def shards(self) -> tuple[list[str], dict[str, str]]:
        """The weight files to read, as vLLM chooses them, and what the index says: tensor -> file."""
        if not _is_file(self.directory / INDEX):
            self.stamps[self.directory / INDEX] = _stamp(self.directory / INDEX)
            found = self._globbed()
            if not found and not any(t.kind == "permission" for t in self.troubles):
                self.trouble(INDEX, "absent", "holds no *.safetensors file")
            return found, {}
        before = len(self.troubles)
        content = self.object(INDEX)
        if content is None:
            if len(self.troubles) > before and self.troubles[-1].kind == "damaged":
                trouble = self.troubles.pop()
                self.trouble(INDEX, "index", f"has an {INDEX} that cannot be used ({trouble.what})")
            return [], {}
        index = content.get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(v, str) and _plain(v) for v in index.values()):
            self.trouble(INDEX, "index", f"has an {INDEX} that cannot be used (no weight_map of names to files)")
            return [], {}
        shards = sorted(set(index.values()))
        if not shards:
            self.trouble(INDEX, "absent", "holds no *.safetensors file")
        if missing := [s for s in shards if not _is_file(self.directory / s)]:
            what = f"lacks {len(missing)} of the {len(shards)} files that {INDEX} names, {missing[0]} first"
            self.trouble(missing[0], "absent", what)
        return [s for s in shards if s not in missing], index

    def header(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """The tensors that a weight file's header describes."""
        start = self._start(name, _FIRST_READ)
        if start is None:
            return
        stamp = self.stamps[self.directory / name]
        size = stamp[0] if stamp else 0
        if start.startswith(_POINTER):
            self.trouble(name, "pointer", f"holds only a Git LFS pointer in place of {name}")
            return
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else _HEADER_LIMIT + 1
        if length > min(size - 8, _HEADER_LIMIT):
            what = f"has a damaged weight file: {name} ({size} bytes) does not begin with a safetensors header"
            self.trouble(name, "damaged", what)
            return
        whole = start if len(start) >= 8 + length else self._start(name, 8 + length)
        tensors = _parsed((whole or b"")[8 : 8 + length], name)
        if tensors is None:
            self.trouble(name, "damaged", f"has a damaged weight file: {name} has an unreadable safetensors header")
            return
        end = 8 + length + max((e for _, _, e in tensors), default=0)
        if end != size:
            self.trouble(name, "damaged", f"has a cut weight file: {name} has {size} bytes, its header says {end}")
            return
        yield from ((tensor_name, tensor) for tensor_name, tensor, _ in tensors)

    def pointers(self) -> None:
        """Find further files that the engine needs and that are only a pointer of Git LFS."""
        for name in _NEEDED:
            if self._start(name, len(_POINTER)) == _POINTER:
                self.trouble(name, "pointer", f"holds only a Git LFS pointer in place of {name}")

    def _globbed(self) -> list[str]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.directory) if entry.name.endswith(".safetensors"))
        except PermissionError:
            self.trouble(self.directory.name, "permission", "is a directory that this user may not read")
            return []
        except OSError as e:
            self.trouble(self.directory.name, "absent", f"cannot be read ({e.strerror or e})")
            return []
        return [name for name in names if _is_file(self.directory / name)]

    def _start(self, name: str, size: int) -> bytes | None:
        """The first bytes of a file; None, and perhaps a trouble, where it is not there or not to be read."""
        path = self.directory / name
        self.stamps[path] = _stamp(path)
        try:
            if not path.is_file():
                return None
            with path.open("rb", buffering=0) as file:
                data = b""
                while len(data) < size and (part := file.read(size - len(data))):
                    data += part
        except PermissionError:
            self.trouble(name, "permission", f"has a file that this user may not read: {name}")
            return None
        except OSError as e:
            self.trouble(name, "damaged", f"has a file that cannot be read: {name} ({e.strerror or e})")
            return None
        self.bytes += len(data)
        return data


def _parsed(data: bytes, file: str) -> list[tuple[str, Tensor, int]] | None:
    """Name, tensor and end of each entry of a header; None where it is no header."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            return None
        dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
        if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
            return None
        bits = _BITS.get(dtype)
        if bits is not None and (offsets[1] - offsets[0]) * 8 != math.prod(shape) * bits:
            return None
        found.append((name, Tensor(dtype, shape, file), offsets[1]))
    return found


def _sizes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 16 or not all(type(v) is int and 0 <= v < 1 << 63 for v in value):
        return None
    return tuple(value)


def _plain(name: str) -> bool:
    """Whether it is the name of a file in the directory itself."""
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a directory that may not be entered
        return False


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file's content does; None where there is no file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
