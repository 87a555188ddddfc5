"""Reads a checkpoint in BF16, FP16 or FP32: its config, its files' headers, and one tensor's bytes at a time."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the image)

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falcon_quantize.refusal import Refusal

if TYPE_CHECKING:
    import torch

ARCHITECTURE = "FalconH1ForCausalLM"
INDEX = "model.safetensors.index.json"
# What can be converted to BF16, with the bytes of a number; others hold numbers that this would not keep.
DTYPES = {"BF16": 2, "F16": 2, "F32": 4}
_QUANTIZED_DTYPES = ("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4")
# Whatever holds weights in another form is not copied to the result.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
# A header lists names and offsets; a longer one is not a header.
_HEADER_LIMIT = 100 << 20
_AGAIN = "Copy the checkpoint again, all files of it."


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file, where its bytes are and what they mean."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """How many bytes it takes in its file."""
        return self.elements * DTYPES[self.dtype]


@dataclass(frozen=True)
class Source:
    """A checkpoint that can be quantized."""

    directory: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    # Files beside the weights (tokenizer, chat template, ...), which the result has as well.
    extra: tuple[str, ...]
    # What tells this content from another: for each file its size, its time and what is read of it before the start.
    fingerprint: Mapping[str, Any]

    @property
    def layers(self) -> int:
        """How many decoder layers the config names."""
        return int(self.config["num_hidden_layers"])

    def read(self, tensor: Tensor) -> bytearray:
        """Return a tensor's bytes; raise `Refusal` where the file has become shorter.

        Read, not mapped: a mapped file that is cut meanwhile ends the process without a word.
        """
        path = self.directory / tensor.file
        content = bytearray(tensor.bytes)
        view = memoryview(content)
        done = 0
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(tensor.offset)
                while done < len(view):
                    got = file.readinto(view[done : done + (64 << 20)])
                    if not got:
                        raise changed(path)
                    done += got
        except (FileNotFoundError, PermissionError):
            raise changed(path) from None
        return content

    def verify(self) -> None:
        """Raise `Refusal` where any file is no longer what it was when the run began."""
        for name, facts in self.fingerprint.items():
            try:
                now = _facts(self.directory / name, facts["header"] is not None)
            except (OSError, ValueError, Refusal):
                now = None
            if now != facts:
                raise changed(self.directory / name)


def load(source: Source, tensor: Tensor, device: str) -> torch.Tensor:
    """One tensor of the source in BF16."""
    import torch

    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[tensor.dtype]
    content = source.read(tensor)
    loaded = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return loaded.view(tensor.shape).to(device).to(torch.bfloat16)


def changed(path: Path) -> Refusal:
    """The refusal for a file that is no longer what it was."""
    return Refusal(
        f"{path} has changed since this run began, so the result would be a mixture and was thrown away. "
        "Start again once nothing writes to the source."
    )


def open_source(directory: Path) -> Source:
    """Read config and headers; raise `Refusal` for whatever cannot be quantized."""
    if not directory.is_dir():
        raise Refusal(f"{directory} is not a directory. Name the directory of a checkpoint in BF16.")
    try:
        config = _config(directory)
        files = _weight_files(directory)
        tensors: dict[str, Tensor] = {}
        for file in files:
            for tensor in _tensors(directory, file):
                if tensor.name in tensors:
                    raise Refusal(f"{directory} holds {tensor.name} twice, in {tensors[tensor.name].file} and {file}.")
                tensors[tensor.name] = tensor
        extra = tuple(sorted(entry.name for entry in os.scandir(directory) if _is_extra(entry)))
        facts = {name: _facts(directory / name, name in files) for name in ("config.json", *files, *extra)}
    except PermissionError as error:
        raise Refusal(
            f"{error.filename} may not be read by user {os.getuid()}. Make the files of the checkpoint readable."
        ) from None
    return Source(directory, config, tensors, extra, facts)


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise Refusal(f"{directory} is no checkpoint: it has no config.json.") from None
    except ValueError as error:
        raise Refusal(f"{path} is not JSON ({error}). {_AGAIN}") from None
    if not isinstance(config, dict):
        raise Refusal(f"{path} is not a JSON object. {_AGAIN}")
    named = config.get("architectures")
    if named != [ARCHITECTURE]:
        raise Refusal(f"{path} names the architectures {named}; this tool knows the layers of {ARCHITECTURE} alone.")
    for place, present in (
        ("config.json with a quantization_config", bool(config.get("quantization_config"))),
        ("hf_quant_config.json", (directory / "hf_quant_config.json").exists()),
    ):
        if present:
            raise Refusal(
                f"{directory} is quantized already: it has {place}. Name the checkpoint in BF16 it came from."
            )
    if not isinstance(config.get("num_hidden_layers"), int) or config["num_hidden_layers"] < 1:
        raise Refusal(f"{path} has num_hidden_layers {config.get('num_hidden_layers')!r}; it has to be 1 or more.")
    return config


def _weight_files(directory: Path) -> list[str]:
    """The names of the files that hold weights; those that the index names, where there is one."""
    index = directory / INDEX
    if not index.is_file():
        names = sorted(path.name for path in directory.glob("*.safetensors"))
        if not names:
            raise Refusal(f"{directory} is no checkpoint: it has no *.safetensors file.")
        return names
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(f"{index} has no usable weight_map. {_AGAIN}") from None
    missing = [name for name in names if not (directory / name).is_file()]
    if not names:
        raise Refusal(f"{index} names no file. {_AGAIN}")
    if missing:
        lacking = f"{len(missing)} of the {len(names)} files that {INDEX} names, {missing[0]} first"
        raise Refusal(f"{directory} lacks {lacking}. {_AGAIN}")
    return names


def _tensors(directory: Path, name: str) -> Iterator[Tensor]:
    path = directory / name
    header, length = _header(path)
    try:
        listed = {key: value for key, value in json.loads(header).items() if key != "__metadata__"}
        tensors = [
            (key, value["dtype"], tuple(map(int, value["shape"])), *map(int, value["data_offsets"]))
            for key, value in listed.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(f"{path} has an unreadable safetensors header. {_AGAIN}") from None
    end = max((stop for *_, stop in tensors), default=0)
    size = path.stat().st_size
    if 8 + length + end != size:
        raise Refusal(f"{path} is cut or damaged: it has {size} bytes, its header says {8 + length + end}. {_AGAIN}")
    for key, dtype, shape, start, stop in tensors:
        if dtype in _QUANTIZED_DTYPES:
            raise Refusal(f"{path} is quantized already: {key} is {dtype}. Name the checkpoint in BF16 it came from.")
        if dtype not in DTYPES:
            raise Refusal(f"{path} holds {key} as {dtype}; this tool reads {', '.join(DTYPES)}.")
        tensor = Tensor(key, name, dtype, shape, 8 + length + start)
        if start < 0 or stop - start != tensor.bytes:
            raise Refusal(
                f"{path} gives {key} {stop - start} bytes, {dtype} {list(shape)} has {tensor.bytes}. {_AGAIN}"
            )
        yield tensor


def _header(path: Path) -> tuple[bytes, int]:
    """The JSON text at the beginning of a safetensors file, and its length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
        if length > min(size - 8, _HEADER_LIMIT):
            raise Refusal(f"{path} ({size} bytes) does not begin with a safetensors header. {_AGAIN}")
        return file.read(length), length


def _is_extra(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return (
        entry.is_file()
        and not name.startswith(".")
        and name not in ("config.json", INDEX)
        and not (name.endswith(_WEIGHTS) or name.endswith(".index.json"))
    )


def _facts(path: Path, is_weights: bool) -> dict[str, Any]:
    """What tells a file from another; of weights the header is hashed, of other files all."""
    facts = path.stat()
    content = _header(path)[0] if is_weights else path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kind = {"header": digest, "content": None} if is_weights else {"header": None, "content": digest}
    return {"bytes": facts.st_size, "modified": facts.st_mtime_ns, **kind}
