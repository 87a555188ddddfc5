"""Safetensors headers, and what tells one checkpoint from another without reading all of it."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from falcon_engine.safetensors import INDEX

# Written beside the weights of an expansion; neither is part of what the expansion is.
MANIFEST, REPORT = "expansion.json", "expansion-report.json"
# Of a tensor that is larger, its middle speaks for it: other weights differ everywhere.
_SAMPLE_BYTES = 64 << 10
# Tokenizer, templates, configuration; what is larger is no file of that kind.
_MOST_BESIDE = 256 << 20
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file: `begin` and `size` in bytes of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


def shards(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, those of its index where it has one."""
    index = directory / INDEX
    if index.is_file():
        return [directory / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return sorted(directory.glob("*.safetensors"))


def header(file: Path) -> list[Tensor]:
    """The tensors of one file, in the order of their bytes. The file must be whole, see `safetensors.read`."""
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        entries = json.loads(stream.read(length))
    found = [
        Tensor(name, file, e["dtype"], tuple(e["shape"]), 8 + length + e["data_offsets"][0], _size(e["data_offsets"]))
        for name, e in entries.items()
        if name != "__metadata__"
    ]
    return sorted(found, key=lambda t: (t.begin, t.name))


def _size(offsets: list[int]) -> int:
    return offsets[1] - offsets[0]


def beside(directory: Path) -> list[Path]:
    """What belongs to a checkpoint besides its weights: configuration, tokenizer, chat template."""
    return sorted(
        file
        for file in directory.iterdir()
        if not file.name.startswith(".")
        and file.name not in (INDEX, MANIFEST, REPORT)
        and not file.name.endswith(_WEIGHTS)
        and file.is_file()
        and file.stat().st_size <= _MOST_BESIDE
    )


def fingerprint(directory: Path) -> str:
    """64 hex digits for a checkpoint: sizes, headers, every small tensor, 64 KiB of each large one, all other files.

    Raises `OSError`, or `ValueError` where a header is none. A 5 GiB checkpoint is told by about 30 MB of it: the whole
    would be read at every start. A byte that changes elsewhere is not seen; `stamps` tells that something changed.
    """
    digest = hashlib.sha256()
    for file in beside(directory):
        _add(digest, file.name.encode(), file.read_bytes())
    for file in shards(directory):
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            _add(digest, file.name.encode(), str(file.stat().st_size).encode(), stream.read(length))
            for tensor in header(file):
                size = min(tensor.size, _SAMPLE_BYTES)
                stream.seek(tensor.begin + (tensor.size - size) // 2)
                digest.update(stream.read(size))
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", *parts: bytes) -> None:
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)


def stamps(directory: Path) -> dict[str, list[int]]:
    """Size in bytes and time of change in ns of each weight file: as long as they stand, nobody has written to it."""
    return {file.name: [(stat := file.stat()).st_size, stat.st_mtime_ns] for file in shards(directory)}


def sha256(file: Path, begin: int = 0, size: int | None = None) -> str:
    """The digest of a file, or of a part of it."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size - begin if size is None else size
        for chunk in chunks(stream.fileno(), begin, size):
            digest.update(chunk)
    return digest.hexdigest()


def chunks(descriptor: int, begin: int, size: int, at_once: int = _CHUNK) -> Iterator[bytes]:
    """Read `size` bytes from `begin` on, some at a time. Raises `OSError` where the file ends before."""
    end = begin + size
    while begin < end:
        chunk = os.pread(descriptor, min(at_once, end - begin), begin)
        if not chunk:
            raise OSError(f"the file has {begin} bytes, and should have {end}")
        begin += len(chunk)
        yield chunk
