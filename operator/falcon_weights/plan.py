"""What an expansion will write: which tensors, in which files, from which of the source's, and how many bytes."""

import json
from dataclasses import dataclass
from pathlib import Path

from falcon_engine import tensors
from falcon_engine.tensors import Tensor
from falcon_weights import formats
from falcon_weights.nvfp4 import GROUP

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}
KV_SCALES = (".k_scale", ".v_scale")


class ExpandError(Exception):
    """Why there is no expansion: one sentence with the file, what it holds and the way out."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Module:
    """One NVFP4 linear: three tensors, perhaps in three files. `shape` is [rows, columns] of the weights."""

    name: str
    weight: Tensor
    scales: Tensor
    scale_2: Tensor
    shape: tuple[int, int]

    @property
    def kind(self) -> str:
        """The last part of its name, such as `in_proj`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Entry:
    """A tensor to write. `begin` counts from the end of the file's header; `module` or `copied` is what it is made of.

    `scale` is the entry of a module's scale where its weights have one of their own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0
    copied: Tensor | None = None
    module: Module | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        count = 1
        for side in self.shape:
            count *= side
        return count * _BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """A file to write: its header's bytes, and its tensors in their order."""

    name: str
    header: bytes
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(entry.size for entry in self.entries)


@dataclass(frozen=True)
class Plan:
    """Everything that will be written beside the files that are copied. `kept`: linears that stay BF16 in FP8."""

    form: str
    shards: tuple[Shard, ...]
    modules: tuple[Module, ...]
    kept: tuple[str, ...]
    kv_scales: bool

    @property
    def size(self) -> int:
        """Bytes of weights."""
        return sum(shard.size for shard in self.shards)


def plan(source: Path, form: str) -> Plan:
    """Read the headers of a checkpoint and decide. Raises `ExpandError` where it holds nothing to expand."""
    files = tensors.shards(source)
    found = {t.name: t for file in files for t in tensors.header(file)}
    modules = {m.name: m for m in _modules(source, found)}
    if not modules:
        raise ExpandError(f"{source} has no NVFP4 weights (uint8 X.weight with X.weight_scale): nothing to expand.")
    kv_scales = _kv_scales(found)
    dropped = {name for m in modules.values() for name in (m.scales.name, m.scale_2.name, f"{m.name}.input_scale")}
    if not kv_scales:
        dropped |= {name for name in found if name.endswith(KV_SCALES)}
    planned, kept = [], []
    for file in files:
        entries: list[Entry] = []
        for tensor in tensors.header(file):
            module = modules.get(tensor.name.removesuffix(".weight")) if tensor.name.endswith(".weight") else None
            if tensor.name in dropped:
                continue
            if module is None:
                entries.append(Entry(tensor.name, tensor.dtype, tensor.shape, copied=tensor))
                if _is_linear(tensor):
                    kept.append(tensor.name.removesuffix(".weight"))
            elif form == "fp8" and formats.fits_fp8(module.shape):
                entries.append(Entry(tensor.name, "F8_E4M3", module.shape, module=module))
                entries.append(Entry(f"{module.name}.weight_scale", "F32", (module.shape[0], 1)))
            else:
                entries.append(Entry(tensor.name, "BF16", module.shape, module=module))
                kept.append(module.name)
        planned.append(_shard(file.name, entries))
    return Plan(form, tuple(planned), tuple(modules.values()), tuple(kept), kv_scales)


def _modules(source: Path, found: dict[str, Tensor]) -> list[Module]:
    modules = []
    for weight in found.values():
        name = weight.name.removesuffix(".weight")
        if not weight.name.endswith(".weight") or weight.dtype != "U8":
            continue
        scales, scale_2 = found.get(f"{name}.weight_scale"), found.get(f"{name}.weight_scale_2")
        for what, tensor, dtype in (("weight_scale", scales, "F8_E4M3"), ("weight_scale_2", scale_2, "F32")):
            if tensor is None or tensor.dtype != dtype:
                has = "is missing" if tensor is None else f"is {tensor.dtype}"
                raise ExpandError(
                    f"{weight.file.name} has packed weights {weight.name}, but {name}.{what}, which should be {dtype}, "
                    f"{has}: quantize {source} again."
                )
        assert scales is not None
        assert scale_2 is not None
        if f"{name}.pre_quant_scale" in found:
            raise ExpandError(f"{name} has a pre_quant_scale (AWQ), which this does not know: use NVFP4 without it.")
        rows, half = weight.shape if len(weight.shape) == 2 else (0, 0)
        if not rows or scales.shape != (rows, 2 * half // GROUP) or 2 * half % GROUP or scale_2.size != 4:
            raise ExpandError(
                f"{weight.name} of {weight.file.name} has shape {list(weight.shape)}, its scales {list(scales.shape)}: "
                f"they must be [rows, columns / 2] and [rows, columns / {GROUP}]; quantize {source} again."
            )
        modules.append(Module(name, weight, scales, scale_2, (rows, 2 * half)))
    return modules


def _kv_scales(found: dict[str, Tensor]) -> bool:
    """Whether the KV cache has scales that say something: 1 is what the engine takes without."""
    for tensor in found.values():
        if tensor.name.endswith(KV_SCALES) and tensor.dtype == "F32":
            with tensor.file.open("rb") as stream:
                stream.seek(tensor.begin)
                if stream.read(4) != b"\x00\x00\x80\x3f":
                    return True
    return False


def _is_linear(tensor: Tensor) -> bool:
    """Whether a copied tensor is the weights of one of the layers' linears, which the quantizer has left as it is."""
    return tensor.name.endswith("_proj.weight") and len(tensor.shape) == 2


def _shard(name: str, entries: list[Entry]) -> Shard:
    # Readers need every tensor to begin at a multiple of its numbers' size: the widest first.
    begin, placed = 0, []
    for entry in sorted(entries, key=lambda e: -_BYTES[e.dtype]):
        placed.append(Entry(entry.name, entry.dtype, entry.shape, begin, entry.copied, entry.module))
        begin += entry.size
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for e in placed:
        described[e.name] = {"dtype": e.dtype, "shape": list(e.shape), "data_offsets": [e.begin, e.begin + e.size]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return Shard(name, len(text).to_bytes(8, "little") + text, tuple(placed))
