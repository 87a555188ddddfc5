"""Decides from the headers alone what is quantized, into which files it goes, and what that takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from falcon_quantize import layers
from falcon_quantize.refusal import Refusal
from falcon_quantize.source import Source, Tensor

# Weights are worked on in slices of whole rows of about this many numbers.
SLICE = 1 << 24
_DTYPES = {"U8": 1, "F8_E4M3": 1, "F32": 4, "BF16": 2}
# Python with torch and ModelOpt, and what the allocator keeps.
_PROGRAM_BYTES = 2 << 30
_EMBEDDING = "model.embed_tokens.weight"
# What a token of a prompt takes inside a layer.
_TOKEN_BYTES = 1 << 20
# What a number of a slice takes at the widest point: its error is computed in FP32 beside indices of 8 bytes.
_SLICE_BYTES = 32


@dataclass(frozen=True)
class Settings:
    """What decides about the bytes of the result."""

    kv_scales: str = "cast"
    keep_mamba: bool = False
    shard_bytes: int = 512 << 20
    # Of the calibration: the text's hash ("" for random tokens), and how many prompts of how many tokens.
    calibration: tuple[str, int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return them as they stand in the report."""
        return asdict(self) | {"calibration": list(self.calibration) if self.calibration else None}


@dataclass(frozen=True)
class Item:
    """Tensors that are worked on together: some that share a scale, or one that stays as it is."""

    tensors: tuple[Tensor, ...]
    quantized: bool

    def outputs(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Name, dtype and shape of each tensor of the result, as ModelOpt's export names them."""
        for tensor in self.tensors:
            if not self.quantized:
                yield tensor.name, "BF16", tensor.shape
                continue
            rows, columns = tensor.shape
            yield tensor.name, "U8", (rows, columns // 2)
            yield f"{tensor.name}_scale", "F8_E4M3", (rows, columns // layers.BLOCK)
            yield f"{tensor.name}_scale_2", "F32", ()
            if scale := kv_scale(tensor.name):
                yield scale, "F32", ()

    @property
    def bytes(self) -> int:
        """How many bytes its part of the result takes."""
        return sum(_DTYPES[dtype] * math.prod(shape) for _, dtype, shape in self.outputs())

    @property
    def source_bytes(self) -> int:
        """How many bytes are read for it."""
        return sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True)
class Plan:
    """The result before it is made."""

    shards: dict[str, tuple[Item, ...]]
    extra_bytes: int
    calibration_bytes: int

    @property
    def items(self) -> list[Item]:
        """All items in the order in which they are worked on."""
        return [item for items in self.shards.values() for item in items]

    @property
    def weights_bytes(self) -> int:
        """The size of all tensors of the result."""
        return sum(item.bytes for item in self.items)

    @property
    def source_bytes(self) -> int:
        """The size of all tensors of the source."""
        return sum(item.source_bytes for item in self.items)

    @property
    def disk_bytes(self) -> int:
        """What the result takes on the disk, its headers, index and report generously counted."""
        return self.weights_bytes + self.extra_bytes + 1024 * sum(len(list(item.outputs())) for item in self.items)

    @property
    def memory_bytes(self) -> int:
        """What the run takes of the host's memory at its widest point: a file of the result, an item, and slices."""
        largest_file = max(sum(item.bytes for item in items) for items in self.shards.values())
        largest_item = max(2 * item.source_bytes for item in self.items)
        quantizing = largest_file + largest_item + SLICE * _SLICE_BYTES
        return _PROGRAM_BYTES + max(quantizing, self.calibration_bytes)


def kv_scale(weight: str) -> str | None:
    """The name of the KV cache's scale that goes with a weight: where ModelOpt writes it and vLLM looks for it."""
    found = re.fullmatch(r"(.*\.self_attn\.([kv])_proj)\.weight", weight)
    return f"{found[1]}.{found[2]}_scale" if found else None


def make(source: Source, settings: Settings) -> Plan:
    """Plan a result; raise `Refusal` where the source lacks a weight or has one that NVFP4 cannot hold."""
    items = list(_items(source, settings))
    shards: list[list[Item]] = [[]]
    for item in items:
        if shards[-1] and sum(other.bytes for other in shards[-1]) + item.bytes > settings.shard_bytes:
            shards.append([])
        shards[-1].append(item)
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    extra = sum(source.fingerprint[name]["bytes"] for name in (*source.extra, "config.json"))
    return Plan(dict(zip(names, map(tuple, shards), strict=True)), extra, _calibration_bytes(source, settings))


def _calibration_bytes(source: Source, settings: Settings) -> int:
    """What a calibration takes on the host: the embedding, a layer, and the prompts' states with one at work."""
    embedding = source.tensors.get(_EMBEDDING)
    if embedding is None:
        raise Refusal(f"{source.directory} has no {_EMBEDDING}. Copy the checkpoint again, all files of it.")
    if settings.calibration is None:
        return 0
    _, prompts, tokens = settings.calibration
    layer = sum(tensor.bytes for name, tensor in source.tensors.items() if name.startswith("model.layers.0."))
    return 2 * embedding.bytes + 2 * layer + 4 * prompts * tokens * embedding.shape[-1] + tokens * _TOKEN_BYTES


def _items(source: Source, settings: Settings) -> Iterator[Item]:
    leader: dict[str, tuple[str, ...]] = {}
    followers: set[str] = set()
    for layer in range(source.layers):
        for group in layers.groups(layer, settings.keep_mamba):
            _check(source, group)
            leader[group[0]] = group
            followers.update(group[1:])
    for name in sorted(source.tensors, key=layers.position):
        if name in leader:
            yield Item(tuple(source.tensors[part] for part in leader[name]), True)
        elif name not in followers:
            yield Item((source.tensors[name],), False)


def _check(source: Source, group: tuple[str, ...]) -> None:
    for name in group:
        tensor = source.tensors.get(name)
        if tensor is None:
            raise Refusal(
                f"{source.directory} has no {name}, which a {source.config['num_hidden_layers']}-layer Falcon-H1 has. "
                "Copy the checkpoint again, all files of it."
            )
        if len(tensor.shape) != 2 or tensor.elements == 0:
            raise Refusal(f"{source.directory / tensor.file} holds {name} of shape {list(tensor.shape)}, not a matrix.")
        if tensor.shape[1] % layers.BLOCK:
            raise Refusal(
                f"{name} has {tensor.shape[1]} columns, which NVFP4 cannot hold: a scale is for {layers.BLOCK}. "
                "Serve this model in BF16, or FP8."
            )
