"""Reading a model's shape from config.json, whatever the file holds."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_engine import profiles, shape
from falcon_engine.ask import Ask
from falcon_engine.fit import fit
from falcon_engine.gpu_memory import weights_gib
from falcon_engine.shape import FALCON_H1R_7B, ShapeError

SEVEN: dict[str, Any] = {
    "architectures": ["FalconH1ForCausalLM"],
    "model_type": "falcon_h1",
    "hidden_size": 3072,
    "num_hidden_layers": 44,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 12288,
    "mamba_d_ssm": 3072,
    "mamba_n_heads": 24,
    "mamba_d_head": 128,
    "mamba_d_state": 256,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 256,
    "mamba_expand": 2,
    "vocab_size": 130049,
    "tie_word_embeddings": False,
    "max_position_embeddings": 262144,
}
NVFP4 = {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4", "ignore": ["lm_head"]}
# Keys of other sizes of the family; the figures are those of the public configs as far as they matter here.
HALF = {**SEVEN, "hidden_size": 1024, "num_hidden_layers": 36, "num_attention_heads": 8, "head_dim": 64,
        "intermediate_size": 2048, "mamba_d_ssm": 1536, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_chunk_size": 128, "vocab_size": 32784, "max_position_embeddings": 16384}  # fmt: skip
LARGE = {**SEVEN, "hidden_size": 5120, "num_hidden_layers": 72, "num_attention_heads": 20, "num_key_value_heads": 4,
         "intermediate_size": 21504, "mamba_d_ssm": 4096, "mamba_n_heads": 32, "mamba_n_groups": 2,
         "vocab_size": 261120}  # fmt: skip
ASK = Ask(16384, 64, 0.9, "auto", True, "bf16")


def without(*keys: str, **changes: object) -> dict[str, Any]:
    return {**{key: value for key, value in SEVEN.items() if key not in keys}, **changes}


def test_the_built_in_shape_is_what_its_config_says() -> None:
    assert shape.from_config({**SEVEN, "quantization_config": NVFP4}) == FALCON_H1R_7B
    assert shape.from_config(SEVEN) == replace(FALCON_H1R_7B, weights="bf16")


@pytest.mark.parametrize("config", [HALF, LARGE], ids=["0.5B", "34B"])
def test_other_sizes_of_the_family_are_read_and_fitted(config: dict[str, Any]) -> None:
    found = shape.from_config(config)
    assert fit(found, profiles.select("0.33.0")[0], ASK, gpu_gib=139.8).verdict == "Fits"


@pytest.mark.parametrize(
    ("weights", "gib"), [("bf16", 14.13), ("fp8", 7.81), ("nvfp4", 5.045), ("nvfp4-linears-without-mamba", 6.81)]
)
def test_weights_are_as_large_as_the_files(weights: str, gib: float) -> None:
    # On CPU nothing is added to the files.
    ask = replace(ASK, weights=weights, device="cpu")
    assert weights_gib(FALCON_H1R_7B, ask) == pytest.approx(gib, abs=0.005)


def test_missing_keys_have_the_familys_defaults() -> None:
    found = shape.from_config(
        without("head_dim", "mamba_d_head", "mamba_n_groups", "mamba_d_conv", "mamba_chunk_size", mamba_d_head="auto")
    )
    assert found.head_dim == 3072 // 12
    assert (found.mamba_head_dim, found.mamba_groups, found.mamba_d_conv, found.mamba_chunk) == (128, 1, 4, 256)
    expanded = shape.from_config(without("mamba_d_ssm", "mamba_d_head", mamba_expand=1))
    assert expanded.mamba_d_ssm == 3072


@pytest.mark.parametrize(
    ("quantization", "weights", "kv"),
    [
        (NVFP4, "nvfp4", "auto"),
        ({**NVFP4, "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}}, "nvfp4", "fp8"),
        ({**NVFP4, "kv_cache_scheme": {"dynamic": True, "num_bits": 8, "type": "float"}}, "nvfp4", "auto"),
        ({**NVFP4, "ignore": ["lm_head", "*in_proj*", "*out_proj*"]}, "nvfp4-linears-without-mamba", "auto"),
        ({**NVFP4, "ignore": ["*mixer*"]}, "nvfp4-linears-without-mamba", "auto"),
        ({**NVFP4, "ignore": ["*in_proj*", "*q_proj", "*k_proj", "*v_proj", "*o_proj"]}, "nvfp4-mlp", "auto"),
        ({**NVFP4, "ignore": ["model.layers.0.mamba.conv1d"]}, "nvfp4", "auto"),
        ({"quant_method": "nvfp4", "format": "nvfp4", "exclude_modules": ["lm_head"]}, "nvfp4", "auto"),
        (
            {"producer": {"name": "modelopt"}, "quant_method": "modelopt",
             "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["*mixer*"]}},
            "nvfp4-linears-without-mamba",
            "fp8",
        ),
        ({"quant_method": "fp8"}, "fp8", "auto"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", "auto"),
        ({"quant_method": "awq", "ignore": 3}, "bf16", "auto"),
    ],
)  # fmt: skip
def test_the_quantization_config_decides_the_formats(quantization: object, weights: str, kv: str) -> None:
    found = shape.from_config({**SEVEN, "quantization_config": quantization})
    assert (found.weights, found.kv_cache_dtype) == (weights, kv)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (without(architectures=["LlamaForCausalLM"]), ["another model", "LlamaForCausalLM", "FalconH1ForCausalLM"]),
        (without("architectures", model_type="llama"), ["another model", "llama"]),
        (without("architectures", "model_type"), ["another model", "no architecture"]),
        ([1, 2], ["JSON object", "[1, 2]"]),
        (None, ["JSON object"]),
        (without("hidden_size"), ["hidden_size is missing", "cut off"]),
        (without(num_hidden_layers="44"), ["num_hidden_layers", '"44"', "whole number"]),
        (without(num_hidden_layers=0), ["num_hidden_layers is 0"]),
        (without(num_hidden_layers=True), ["num_hidden_layers is True"]),
        (without(vocab_size=1.5), ["vocab_size is 1.5"]),
        (without(vocab_size=10**30), ["vocab_size"]),
        (without(hidden_size=float("nan")), ["hidden_size is nan"]),
        (without("mamba_d_ssm", mamba_expand="2"), ["mamba_expand"]),
        (without(mamba_n_heads=23), ["mamba_n_heads 23", "mamba_d_ssm 3072"]),
        (without(quantization_config="nvfp4"), ["quantization_config", "object"]),
    ],
)
def test_a_wrong_config_is_named(config: object, words: list[str]) -> None:
    with pytest.raises(ShapeError) as raised:
        shape.from_config(config)
    assert all(word in str(raised.value) for word in words)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (json.dumps(SEVEN).encode()[:200], "cut off"),
        (b"", "not JSON"),
        (b"\x00\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"{" + b" " * (5 << 20), "more than 4 MiB"),
        (b"[]", "JSON object"),
    ],
)
def test_a_broken_file_is_named(data: bytes, word: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(data)
    with pytest.raises(ShapeError, match=word) as raised:
        shape.read(file)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="cannot be read"):
        shape.read(tmp_path)


def test_a_checkpoints_directory_is_read_with_what_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SEVEN))
    assert shape.read(tmp_path).weights == "bf16"
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_NVFP4", "exclude_modules": []}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    assert shape.read(tmp_path) == FALCON_H1R_7B
    assert shape.read(tmp_path / "config.json") == FALCON_H1R_7B


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from([*SEVEN, "quantization_config"]), value=JSON)
def test_any_value_of_any_key_is_read_or_refused(key: str, value: object) -> None:
    with contextlib.suppress(ShapeError):
        found = shape.from_config({**SEVEN, key: value})
        assert fit(found, profiles.select("0.33.0")[0], replace(ASK, weights=found.weights), gpu_gib=80).message
