"""The files of a quantized checkpoint beside its weights: the configs that vLLM reads, the index, the source's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falcon_quantize import layers
from falcon_quantize.plan import Plan, Settings
from falcon_quantize.source import INDEX, Source
from falcon_quantize.work import Work

REPORT = "quantization-report.json"
_ALGORITHM = "W4A16_NVFP4"


def write(work: Work, source: Source, plan: Plan, settings: Settings, modelopt: str) -> None:
    """Write all files but the weights and the report."""
    for name in source.extra:
        if name != REPORT:
            work.write(name, lambda path, name=name: _copy(source.directory / name, path))  # type: ignore[misc]
    excluded = exclude_modules(plan, settings)
    producer = {"name": "modelopt", "version": modelopt}
    _write_json(work, "config.json", _config(source.config, excluded, producer))
    quantization = {
        "quant_algo": _ALGORITHM,
        "kv_cache_quant_algo": "FP8",
        "group_size": layers.BLOCK,
        "exclude_modules": excluded,
    }
    _write_json(work, "hf_quant_config.json", {"producer": producer, "quantization": quantization})
    files = {name: file for file, items in plan.shards.items() for item in items for name, *_ in item.outputs()}
    index = {"metadata": {"total_size": plan.weights_bytes}, "weight_map": dict(sorted(files.items()))}
    _write_json(work, INDEX, index)


def write_report(work: Work, report: Mapping[str, Any]) -> None:
    """Write the report."""
    _write_json(work, REPORT, report)


def exclude_modules(plan: Plan, settings: Settings) -> list[str]:
    """The modules that stay in BF16 as ModelOpt's export lists them, and what vLLM needs to leave them alone.

    vLLM calls a layer's Mamba `model.44.mixer` where the checkpoint says `model.layers.0.mamba`: only a pattern for the
    last part of the name holds for both.
    """
    kept = [item.tensors[0] for item in plan.items if not item.quantized]
    modules = [
        tensor.name.removesuffix(".weight")
        for tensor in kept
        if tensor.name.endswith(".weight") and len(tensor.shape) > 1 and not _is(tensor.name, layers.MAMBA)
    ]
    patterns = [f"*{part.partition('.')[2]}*" for part in layers.MAMBA] if settings.keep_mamba else []
    return sorted(set(modules)) + patterns


def _is(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.endswith(f".{part}.weight") for part in parts)


def _config(config: Mapping[str, Any], excluded: list[str], producer: Mapping[str, str]) -> dict[str, Any]:
    """The source's config with what quantization adds, flat as ModelOpt writes it and vLLM reads it."""
    weights = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": layers.BLOCK}
    quantization = {
        "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}},
        "ignore": excluded,
        "quant_algo": _ALGORITHM,
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "producer": dict(producer),
        "quant_method": "modelopt",
    }
    names = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"]
    return {**config, **dict.fromkeys(names, "bfloat16"), "quantization_config": quantization}


def _write_json(work: Work, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2)
    work.write(name, lambda path: _text(path, f"{text}\n"))


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _copy(origin: Path, path: Path) -> None:
    shutil.copyfile(origin, path)
