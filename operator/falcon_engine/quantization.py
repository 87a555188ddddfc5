"""How a Falcon-H1's weights are quantized by what their tensors are, and the config that says so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_engine.modelopt import GROUP_SIZE, Reading, Rules
from falcon_engine.safetensors import Tensor
from falcon_engine.shape import ModelShape

PACKED = "U8"
# What vLLM builds without a quantization config: always BF16.
KEPT = ("lm_head", "model.embed_tokens")
KV_SCALES = ("self_attn.k_proj.k_scale", "self_attn.v_proj.v_scale")


@dataclass(frozen=True)
class Layer:
    """A linear layer as vLLM builds it, and the checkpoint's modules that it holds.

    `name` is vLLM's, `shards` are its parts under vLLM's name of the place (none where it is not fused), `modules` are
    the checkpoint's names, `rows` their output sizes and `columns` the input size.
    """

    kind: str
    name: str
    shards: tuple[str, ...]
    modules: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int


def layers(shape: ModelShape) -> list[Layer]:
    """Every linear layer that a quantization config reaches."""
    found = []
    heads, kv = shape.attention_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden, inner, ssm = shape.hidden_size, shape.intermediate_size, shape.mamba_d_ssm
    projected = 2 * ssm + 2 * shape.mamba_groups * shape.mamba_d_state + shape.mamba_heads
    for index in range(shape.layers):
        at = f"model.layers.{index}"
        # vLLM leaves self_attn out of its names, and counts the mixers on after the attentions.
        mixer, mlp = f"model.{shape.layers + index}.mixer", f"{at}.feed_forward"
        for kind, place, fused, parts, rows, columns in (
            ("attention", f"{at}.self_attn", f"{at}.qkv_proj", ("q_proj", "k_proj", "v_proj"), (heads, kv, kv), hidden),
            ("attention", f"{at}.self_attn", f"{at}.o_proj", ("o_proj",), (hidden,), heads),
            ("mamba", f"{at}.mamba", f"{mixer}.in_proj", ("in_proj",), (projected,), hidden),
            ("mamba", f"{at}.mamba", f"{mixer}.out_proj", ("out_proj",), (hidden,), ssm),
            ("mlp", mlp, f"{mlp}.gate_up_proj", ("gate_proj", "up_proj"), (inner, inner), hidden),
            ("mlp", mlp, f"{mlp}.down_proj", ("down_proj",), (hidden,), inner),
        ):  # fmt: skip
            parent = fused.rpartition(".")[0]
            shards = tuple(f"{parent}.{part}" for part in parts) if len(parts) > 1 else ()
            found.append(Layer(kind, fused, shards, tuple(f"{place}.{part}" for part in parts), rows, columns))
    return found


def is_packed(module: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module's weight is two FP4 numbers a byte."""
    weight = tensors.get(f"{module}.weight")
    return weight is not None and weight.dtype == PACKED


def is_plain(module: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module's weight is one that the engine takes without a quantization."""
    weight = tensors.get(f"{module}.weight")
    return weight is not None and weight.dtype in ("BF16", "F16", "F32")


def any_packed(found: Iterable[Layer], tensors: Mapping[str, Tensor]) -> bool:
    """Whether any of the layers is FP4."""
    return any(is_packed(module, tensors) for layer in found for module in layer.modules)


def otherwise(found: Iterable[Layer], tensors: Mapping[str, Tensor]) -> str | None:
    """The first module whose weight is there and neither FP4 nor plain; None where there is none."""
    modules = (module for layer in found for module in layer.modules)
    return next(
        (m for m in modules if f"{m}.weight" in tensors and not is_packed(m, tensors) and not is_plain(m, tensors)),
        None,
    )


def input_scales(found: Iterable[Layer], tensors: Mapping[str, Tensor]) -> str:
    """`all`, `some` or `none`: how many of the packed modules have an input_scale, which W4A4 needs."""
    have = {f"{m}.input_scale" in tensors for layer in found for m in layer.modules if is_packed(m, tensors)}
    return "all" if have == {True} else "some" if True in have else "none"


def kv_scales(shape: ModelShape, tensors: Mapping[str, Tensor]) -> str:
    """`all`, `some` or `none`: how many of the KV cache's scales are there."""
    have = {f"model.layers.{i}.{name}" in tensors for i in range(shape.layers) for name in KV_SCALES}
    return "all" if have == {True} else "some" if True in have else "none"


def ignored(shape: ModelShape, tensors: Mapping[str, Tensor]) -> list[str]:
    """The names that keep exactly the modules out that are not packed, for every version of vLLM and for ModelOpt."""
    found = layers(shape)
    names = [*KEPT, "*.conv1d"]
    by_leaf: dict[str, list[Layer]] = {}
    for layer in found:
        by_leaf.setdefault(layer.name.rpartition(".")[2], []).append(layer)
    for leaf, same in by_leaf.items():
        plain = [layer for layer in same if not is_packed(layer.modules[0], tensors)]
        parts = [module.rpartition(".")[2] for module in same[0].modules]
        if len(plain) == len(same):
            names += [f"*.{name}" for name in dict.fromkeys((leaf, *parts))]
        else:
            names += [name for layer in plain for name in dict.fromkeys((layer.name, *layer.modules))]
    return names


def config(shape: ModelShape, tensors: Mapping[str, Tensor], declared: Reading | None, rules: Rules) -> dict[str, Any]:
    """The `quantization_config` for config.json that says what the tensors are, in a form that the version takes.

    `declared` is what the checkpoint says now: W4A16 for weights that have input scales too is a choice, and is kept.
    """
    chosen = declared is not None and declared.algorithm == "W4A16_NVFP4"
    weight_only = chosen or input_scales(layers(shape), tensors) != "all"
    numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": GROUP_SIZE}
    group: dict[str, Any] = {"targets": ["Linear"], "weights": numbers}
    if not weight_only:
        group["input_activations"] = numbers
    known = weight_only and "W4A16_NVFP4" in rules.algorithms
    written: dict[str, Any] = {
        "quant_method": "modelopt",
        "quant_algo": "W4A16_NVFP4" if known else "NVFP4",
        "config_groups": {"group_0": group},
        "ignore": ignored(shape, tensors),
    }
    if kv := kv_algorithm(shape, tensors, declared):
        bits = 8 if kv == "FP8" else 4
        written["kv_cache_scheme"] = {"dynamic": False, "num_bits": bits, "type": "float"}
    return written


def kv_algorithm(shape: ModelShape, tensors: Mapping[str, Tensor], declared: Reading | None) -> str | None:
    """What the KV cache should be announced to be: as it is, where that is valid; FP8 where its scales are there."""
    if declared and declared.kv in ("FP8", "NVFP4"):
        return declared.kv
    # A checkpoint that names something unknown meant a small cache, and FP8 is the one that every version has.
    return "FP8" if (declared and declared.kv) or kv_scales(shape, tensors) != "none" else None


def beside(written: Mapping[str, Any], producer: object) -> dict[str, Any]:
    """The same in the form of hf_quant_config.json, for tools that read that."""
    kv = written.get("kv_cache_scheme")
    return {
        "producer": producer if isinstance(producer, Mapping) else {"name": "modelopt"},
        "quantization": {
            "quant_algo": written["quant_algo"],
            "kv_cache_quant_algo": None if kv is None else "FP8" if kv["num_bits"] == 8 else "NVFP4",
            "group_size": GROUP_SIZE,
            "exclude_modules": written["ignore"],
        },
    }
