"""Writes small Falcon-H1 checkpoints: safetensors headers of real sizes, and holes in place of the weights."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, INNER, VOCABULARY = 2, 64, 128, 96
HEADS, KV_HEADS, HEAD = 4, 2, 16
SSM, SSM_HEADS, SSM_HEAD, STATE, GROUPS = 64, 4, 16, 30, 1  # in_proj has 192 rows, a multiple of 64
CONFIG: dict[str, Any] = {
    "architectures": ["FalconH1ForCausalLM"],
    "model_type": "falcon_h1",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "mamba_d_ssm": SSM,
    "mamba_n_heads": SSM_HEADS,
    "mamba_d_head": SSM_HEAD,
    "mamba_d_state": STATE,
    "mamba_n_groups": GROUPS,
    "mamba_d_conv": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
PARTS = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "mamba": ("mamba.in_proj", "mamba.out_proj"),
    "mlp": ("feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"),
}
ALL = tuple(PARTS)
SIZES = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mamba.in_proj": (2 * SSM + 2 * GROUPS * STATE + SSM_HEADS, HIDDEN),
    "mamba.out_proj": (HIDDEN, SSM),
    "feed_forward.gate_proj": (INNER, HIDDEN),
    "feed_forward.up_proj": (INNER, HIDDEN),
    "feed_forward.down_proj": (HIDDEN, INNER),
}
_BYTES = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}
Tensors = dict[str, tuple[str, tuple[int, ...]]]
FP8_KV = {"dynamic": False, "num_bits": 8, "type": "float"}
KEPT = ["lm_head", "model.embed_tokens", *(f"model.layers.{i}.mamba.conv1d" for i in range(LAYERS))]


def tensors(
    packed: Iterable[str] = ALL, *, kv: bool = True, inputs: bool = False, layers: Iterable[int] = ()
) -> Tensors:
    """The tensors of a checkpoint whose `packed` parts are FP4, in these layers alone where any are named."""
    found: Tensors = {
        "model.embed_tokens.weight": ("BF16", (VOCABULARY, HIDDEN)),
        "lm_head.weight": ("BF16", (VOCABULARY, HIDDEN)),
        "model.final_layernorm.weight": ("BF16", (HIDDEN,)),
    }
    chosen = tuple(layers) or tuple(range(LAYERS))
    for index in range(LAYERS):
        at = f"model.layers.{index}"
        for part, modules in PARTS.items():
            for module in modules:
                rows, columns = SIZES[module]
                name = f"{at}.{module}"
                if part not in packed or index not in chosen:
                    found[f"{name}.weight"] = ("BF16", (rows, columns))
                    continue
                found[f"{name}.weight"] = ("U8", (rows, columns // 2))
                found[f"{name}.weight_scale"] = ("F8_E4M3", (rows, columns // 16))
                found[f"{name}.weight_scale_2"] = ("F32", ())
                if inputs:
                    found[f"{name}.input_scale"] = ("F32", ())
        if kv:
            found[f"{at}.self_attn.k_proj.k_scale"] = ("F32", ())
            found[f"{at}.self_attn.v_proj.v_scale"] = ("F32", ())
        for name, shape in (
            ("mamba.A_log", (SSM_HEADS,)),
            ("mamba.D", (SSM_HEADS,)),
            ("mamba.dt_bias", (SSM_HEADS,)),
            ("mamba.conv1d.weight", (SSM + 2 * GROUPS * STATE, 1, 4)),
            ("mamba.conv1d.bias", (SSM + 2 * GROUPS * STATE,)),
            ("input_layernorm.weight", (HIDDEN,)),
            ("pre_ff_layernorm.weight", (HIDDEN,)),
        ):
            found[f"{at}.{name}"] = ("BF16", shape)
    return found


def exported(algorithm: str = "W4A16_NVFP4", **changes: Any) -> dict[str, Any]:
    """A quantization_config in the form that ModelOpt writes into config.json."""
    numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    group = {"weights": numbers, "targets": ["Linear"]}
    if algorithm == "NVFP4":
        group["input_activations"] = numbers
    return {
        "config_groups": {"group_0": group},
        "ignore": KEPT,
        "quant_algo": algorithm,
        "kv_cache_scheme": FP8_KV,
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quant_method": "modelopt",
        **changes,
    }


def beside(algorithm: str = "W4A16_NVFP4", **changes: Any) -> dict[str, Any]:
    """The content of hf_quant_config.json as ModelOpt writes it."""
    return {
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "quantization": {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": "FP8",
            "group_size": 16,
            "exclude_modules": KEPT,
            **changes,
        },
    }


def shard(path: Path, content: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of these tensors; its weights are a hole that takes no space."""
    header, end = {}, 0
    for name, (dtype, shape) in content.items():
        begin, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write(
    directory: Path,
    content: Mapping[str, tuple[str, tuple[int, ...]]],
    quantization: object = None,
    hf_quant: object = None,
    shards: int = 1,
    **config: Any,
) -> Path:
    """A checkpoint in a new directory."""
    directory.mkdir(parents=True, exist_ok=True)
    values = {**CONFIG, **({} if quantization is None else {"quantization_config": quantization}), **config}
    (directory / "config.json").write_text(json.dumps(values))
    (directory / "tokenizer.json").write_text("{}")
    if hf_quant is not None:
        (directory / "hf_quant_config.json").write_text(json.dumps(hf_quant))
    if shards == 1:
        shard(directory / "model.safetensors", content)
        return directory
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    index = {name: names[i % shards] for i, name in enumerate(content)}
    for file in names:
        shard(directory / file, {name: t for name, t in content.items() if index[name] == file})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return directory
