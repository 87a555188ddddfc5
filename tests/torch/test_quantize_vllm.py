"""vLLM takes the config as it is: weight-only NVFP4, an FP8 cache, and what stays in BF16 under vLLM's own names."""

# mypy: disable-error-code="import-not-found"

from pathlib import Path

import pytest
from tests.torch.quantizing import checkpoint, run
from vllm.engine.arg_utils import EngineArgs


@pytest.mark.parametrize("options", [(), ("--keep-mamba",)], ids=["all", "keep mamba"])
def test_vllm_takes_the_config_without_a_flag(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(checkpoint(tmp_path / "source"), tmp_path / "out", *options) == 0
    arguments = EngineArgs(model=str(tmp_path / "out"), skip_tokenizer_init=True, max_model_len=64)
    config = arguments.create_engine_config()
    assert config.model_config.quantization == "modelopt_fp4"
    assert config.cache_config.cache_dtype == "fp8_e4m3"
    assert config.quant_config is not None
    excluded = config.quant_config.is_layer_excluded
    # vLLM numbers the mixers on after the layers, here two
    assert [excluded(f"model.{n}.mixer.{part}") for n in (2, 3) for part in ("in_proj", "out_proj")] == [
        bool(options)
    ] * 4
    assert excluded("lm_head")
    assert not any(excluded(f"model.layers.0.{part}") for part in ("qkv_proj", "o_proj", "feed_forward.gate_up_proj"))
