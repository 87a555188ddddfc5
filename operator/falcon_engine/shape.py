"""The sizes of a Falcon-H1 model that memory depends on: built in for Falcon-H1R-7B, or read from a config.json."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ARCHITECTURE = "FalconH1ForCausalLM"
MODEL_TYPE = "falcon_h1"
# A config.json has a few kilobytes; what is larger is another file.
MOST_BYTES = 4 << 20
# No Falcon-H1 comes near it, and sums with anything larger would only waste time.
MOST = 1 << 24


class ShapeError(ValueError):
    """No Falcon-H1 config: the sentence names the key, what it holds and what it should hold."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Falcon-H1 model; every layer has attention and a Mamba-2 mixer side by side.

    `weights` is the checkpoint's format: `bf16`, `fp8`, `nvfp4` (every linear of the layers),
    `nvfp4-linears-without-mamba` (the mixer stays BF16), `nvfp4-mlp` (only the MLP is quantized), and of FP8
    `fp8-without-mamba`, `fp8-mlp` and `fp8-without-in-proj` (that of the mixer stays BF16).
    `kv_cache_dtype` is what `--kv-cache-dtype auto` becomes: `fp8` where the checkpoint asks for it, else `auto`.
    """

    hidden_size: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    mamba_d_ssm: int
    mamba_heads: int
    mamba_head_dim: int
    mamba_d_state: int
    mamba_groups: int
    mamba_d_conv: int
    mamba_chunk: int
    vocab_size: int
    tied_embeddings: bool
    max_positions: int
    weights: str = "bf16"
    kv_cache_dtype: str = "auto"

    @property
    def in_proj_rows(self) -> int:
        """Columns that a mixer's first projection gives: gate, input, B, C and a time step for each head."""
        return 2 * self.mamba_d_ssm + 2 * self.mamba_groups * self.mamba_d_state + self.mamba_heads


FALCON_H1R_7B = ModelShape(
    hidden_size=3072,
    layers=44,
    attention_heads=12,
    kv_heads=2,
    head_dim=128,
    intermediate_size=12288,
    mamba_d_ssm=3072,
    mamba_heads=24,
    mamba_head_dim=128,
    mamba_d_state=256,
    mamba_groups=1,
    mamba_d_conv=4,
    mamba_chunk=256,
    vocab_size=130049,
    tied_embeddings=False,
    max_positions=262144,
    weights="nvfp4",
)


def read(path: str | os.PathLike[str]) -> ModelShape:
    """The shape in a config.json, or in the config.json of a directory. Raises `ShapeError`.

    Where it says nothing of a quantization, ModelOpt's hf_quant_config.json beside it does.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    config = _json(file)
    beside = file.with_name("hf_quant_config.json")
    if isinstance(config, dict) and config.get("quantization_config") is None and beside.is_file():
        config["quantization_config"] = _json(beside)
    try:
        return from_config(config)
    except ShapeError as e:
        raise ShapeError(f"{file}: {e}") from None


def _json(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as e:
        raise ShapeError(f"{file} cannot be read: {e.strerror or e}") from None
    if len(data) > MOST_BYTES:
        raise ShapeError(f"{file} has more than {MOST_BYTES >> 20} MiB, which no config.json of a model has")
    try:
        content: object = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise ShapeError(f"{file} is not JSON: {str(e)[:100]}; it may have been cut off while it was copied") from None
    return content


def from_config(config: object) -> ModelShape:
    """The shape that a config.json's content gives. Raises `ShapeError`."""
    if not isinstance(config, Mapping):
        raise ShapeError(f"a config.json is a JSON object, not {_shown(config)}")
    _check_model(config)
    hidden = _size(config, "hidden_size")
    heads = _size(config, "num_attention_heads")
    state = _size(config, "mamba_d_state")
    groups = _size(config, "mamba_n_groups", default=1)
    mamba_heads = _size(config, "mamba_n_heads")
    d_ssm = _size(config, "mamba_d_ssm", default=0) or int(_number(config, "mamba_expand", 2.0) * hidden)
    named = config.get("mamba_d_head") not in (None, "auto")
    mamba_head = _size(config, "mamba_d_head") if named else d_ssm // mamba_heads
    if mamba_heads * mamba_head != d_ssm:
        raise ShapeError(
            f"mamba_n_heads {mamba_heads} x mamba_d_head {mamba_head} is not mamba_d_ssm {d_ssm}, as it must be"
        )
    weights, kv_dtype = _quantization(config)
    return ModelShape(
        hidden_size=hidden,
        layers=_size(config, "num_hidden_layers"),
        attention_heads=heads,
        kv_heads=_size(config, "num_key_value_heads", default=heads),
        head_dim=_size(config, "head_dim", default=0) or max(1, hidden // heads),
        intermediate_size=_size(config, "intermediate_size"),
        mamba_d_ssm=d_ssm,
        mamba_heads=mamba_heads,
        mamba_head_dim=mamba_head,
        mamba_d_state=state,
        mamba_groups=groups,
        mamba_d_conv=_size(config, "mamba_d_conv", default=4),
        mamba_chunk=_size(config, "mamba_chunk_size", default=256),
        vocab_size=_size(config, "vocab_size"),
        tied_embeddings=config.get("tie_word_embeddings") is True,
        max_positions=_size(config, "max_position_embeddings", default=8192),
        weights=weights,
        kv_cache_dtype=kv_dtype,
    )


def _check_model(config: Mapping[Any, Any]) -> None:
    named = config.get("architectures")
    architectures = [a for a in named if isinstance(a, str)] if isinstance(named, list) else []
    kind = config.get("model_type")
    if ARCHITECTURE in architectures or (not architectures and kind == MODEL_TYPE):
        return
    said = ", ".join(architectures)[:80] or (f"model_type {_shown(kind)}" if kind is not None else "no architecture")
    raise ShapeError(f"this config.json is of another model: it names {said}, and {ARCHITECTURE} is needed")


def _size(config: Mapping[Any, Any], key: str, default: int | None = None) -> int:
    """A whole number from 1 to `MOST`; a missing or null key gives the default, where there is one."""
    value = config.get(key)
    if value is None:
        if default is None:
            raise ShapeError(f"{key} is missing, which every Falcon-H1 config has; the file may have been cut off")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ShapeError(f"{key} is {_shown(value)}, and must be a whole number from 1 to {MOST}")
    return value


def _number(config: Mapping[Any, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 64:
        raise ShapeError(f"{key} is {_shown(value)}, and must be a number above 0 and at most 64")
    return float(value)


def _quantization(config: Mapping[Any, Any]) -> tuple[str, str]:
    """The weights' format and the KV cache's, from quantization_config; either of ModelOpt's two layouts."""
    outer = config.get("quantization_config")
    if outer is None:
        return "bf16", "auto"
    if not isinstance(outer, Mapping):
        raise ShapeError(f"quantization_config is {_shown(outer)}, and must be an object")
    nested = outer.get("quantization")
    inner: Mapping[Any, Any] = {**outer, **nested} if isinstance(nested, Mapping) else outer
    algorithm = f"{inner.get('quant_algo') or ''} {inner.get('quant_method') or ''} {inner.get('format') or ''}".lower()
    scheme = inner.get("kv_cache_scheme")
    kv = inner.get("kv_cache_quant_algo") or ""
    eight_bits = isinstance(scheme, Mapping) and [scheme.get(key) for key in ("num_bits", "type", "dynamic")] == [
        8,
        "float",
        False,
    ]
    kv_dtype = "fp8" if eight_bits or str(kv).lower() == "fp8" else "auto"
    if "fp4" in algorithm:
        excluded = [*_patterns(inner.get("exclude_modules")), *_patterns(inner.get("ignore"))]
        return _nvfp4(excluded), kv_dtype
    if "float-quantized" in algorithm and inner.get("config_groups"):
        return _fp8(_patterns(inner.get("ignore"))), kv_dtype
    return ("fp8" if "fp8" in algorithm else "bf16"), kv_dtype


def _patterns(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _nvfp4(excluded: list[str]) -> str:
    """Which linears are NVFP4, as vLLM reads the exclusions: with its own names of the layers, not the checkpoint's."""

    def left_out(*names: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in excluded)

    mixer = left_out("model.44.mixer.in_proj", "model.layers.0.mixer.in_proj", "model.layers.0.mamba.in_proj")
    if not mixer:
        return "nvfp4"
    attention = left_out("model.layers.0.o_proj", "model.layers.0.self_attn.o_proj")
    return "nvfp4-mlp" if attention else "nvfp4-linears-without-mamba"


def _fp8(ignored: list[str]) -> str:
    """Which linears are FP8, by what is left out; patterns are only looked through for names, not run."""

    def left_out(*words: str) -> bool:
        return any(word in pattern for word in words for pattern in ignored)

    if not left_out("in_proj", "mamba", "mixer"):
        return "fp8"
    if not left_out("out_proj"):
        return "fp8-without-in-proj"
    return "fp8-mlp" if left_out("o_proj", "self_attn") else "fp8-without-mamba"


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
