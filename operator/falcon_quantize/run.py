"""One run from the source to the result, file by file, going on where an earlier one ended."""

# mypy: disable-error-code="import-not-found, import-untyped"
# (torch and safetensors are only in the image)

from __future__ import annotations

import logging
import platform
import resource
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falcon_quantize import checks, plan, report, result
from falcon_quantize.plan import Item, Plan, Settings
from falcon_quantize.progress import Progress, say
from falcon_quantize.refusal import Refusal
from falcon_quantize.source import Source, load, open_source
from falcon_quantize.work import Work

if TYPE_CHECKING:
    import torch

# ModelOpt's recipes with `kv_fp8_cast` take E4M3's greatest number as the greatest in the cache: K and V are cast.
_CAST_SCALE = 1.0
_CALIBRATION = "calibration"
# Changes whenever the same source and settings would give other bytes.
_FORMAT = 1


@dataclass(frozen=True)
class Request:
    """What a user asks for."""

    source: Path
    out: Path
    settings: Settings
    device: str
    text: Path | None = None


def make_key(source: Source, settings: Settings) -> dict[str, Any]:
    """What the result is made of: whoever has the same key has the same bytes."""
    return {
        "format": _FORMAT,
        "modelopt": version("nvidia-modelopt"),
        "settings": settings.as_json(),
        "source": {name: dict(facts) for name, facts in source.fingerprint.items()},
    }


def quantize(request: Request) -> dict[str, Any] | None:
    """Make the result and return its report; None where it was there already. Raises `Refusal`, `Busy` or `OSError`."""
    start = time.monotonic()
    source = open_source(request.source)
    planned = plan.make(source, request.settings)
    key = make_key(source, request.settings)
    if checks.is_made(request.out, key):
        return None
    checks.place(request.source, request.out)
    checks.disk(planned, request.out)
    checks.memory(planned)
    device = checks.device(request.device)
    _warm_up()
    with Work(request.out, key) as work:
        if work.started_over:
            say(f"{work.folder} was made of another source or with other settings: starting over")
        scales = _kv_scales(work, source, request, device)
        entries = []
        with Progress(planned.source_bytes) as progress:
            for name, items in planned.shards.items():
                entry = work.done(name)
                if entry is None:
                    entry = _make_file(work, source, name, items, scales, device, progress)
                    progress.file(name)
                else:
                    progress.skip(sum(item.source_bytes for item in items))
                entries.append(entry)
        result.write(work, source, planned, request.settings, key["modelopt"])
        quantized = report.weights(entries)
        told = _report(request, planned, key, quantized)
        told["run"] = {
            "device": _device_name(device),
            "seconds": round(time.monotonic() - start, 1),
            "peakMemoryBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        result.write_report(work, told)
        source.verify()
        work.finish()
    return told


def _warm_up() -> None:
    """Load ModelOpt, which takes seconds, before the time of the work is measured."""
    # It warns of versions of transformers that its export does not know, and torch of a missing Triton.
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("falcon_quantize.nvfp4")
    logging.disable(logging.NOTSET)


def _kv_scales(work: Work, source: Source, request: Request, device: str) -> Mapping[str, float] | None:
    """The scale of each layer's K and V by the tensor's name; None for the constant one."""
    if request.settings.calibration is None:
        return None
    entry = work.noted(_CALIBRATION)
    if entry is None:
        from falcon_quantize import calibrate

        scales = calibrate.kv_scales(source, request.settings.calibration, request.text, device)
        entry = work.note(_CALIBRATION, {"scales": scales})
    return dict(entry["scales"])


def _make_file(
    work: Work,
    source: Source,
    name: str,
    items: tuple[Item, ...],
    scales: Mapping[str, float] | None,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    tensors: dict[str, torch.Tensor] = {}
    weights: list[dict[str, Any]] = []
    for item in items:
        read = [load(source, tensor, device) for tensor in item.tensors]
        if item.quantized:
            weights += _quantize(item, read, tensors, scales)
        else:
            tensors[item.tensors[0].name] = read[0].cpu()
        progress.add(item.source_bytes)
    source.verify()
    return work.add(name, lambda path: _save(tensors, path), {"weights": weights})


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # what the system said is in its text alone
        raise OSError(str(error)) from error


def _quantize(
    item: Item, read: list[torch.Tensor], tensors: dict[str, torch.Tensor], scales: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Put a group in NVFP4 among the tensors of a file; return what is to be told of each of its weights."""
    import torch

    from falcon_quantize import nvfp4

    try:
        results = nvfp4.quantize(read)
    except ValueError as error:
        names = ", ".join(tensor.name for tensor in item.tensors)
        raise Refusal(f"{names} cannot be quantized: {error}. Repair the source, or copy it again.") from None
    told = []
    for tensor, made in zip(item.tensors, results, strict=True):
        tensors[tensor.name] = made.packed
        tensors[f"{tensor.name}_scale"] = made.scale
        tensors[f"{tensor.name}_scale_2"] = made.scale_2.clone()
        if scale := plan.kv_scale(tensor.name):
            tensors[scale] = torch.tensor(_CAST_SCALE if scales is None else scales[scale], dtype=torch.float32)
        size = sum(part.nbytes for part in (made.packed, made.scale, made.scale_2))
        facts = {"name": tensor.name, "shape": list(tensor.shape), "bytes": size}
        told.append(facts | {"distance": made.distance, "norm": made.norm})
    return told


def _report(request: Request, planned: Plan, key: Mapping[str, Any], quantized: list[dict[str, Any]]) -> dict[str, Any]:
    in_nvfp4 = sum(weight["bytes"] for weight in quantized)
    kept = report.kept(planned)
    sizes = {
        "source": planned.source_bytes,
        "result": planned.weights_bytes,
        "quantized": in_nvfp4,
        "kept": sum(tensor["bytes"] for tensor in kept),
    }
    names = {"nvidia-modelopt": "nvidia-modelopt", "torch": "torch", "safetensors": "safetensors"}
    return {
        "source": str(request.source),
        "key": dict(key),
        "versions": {name: version(package) for name, package in names.items()} | {"python": platform.python_version()},
        "bytes": sizes,
        "kvScales": request.settings.kv_scales,
        "layers": report.by_layer(quantized),
        "weights": quantized,
        "kept": kept,
    }


def _device_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
