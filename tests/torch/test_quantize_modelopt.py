"""What falcon-quantize writes is what ModelOpt's own export of the whole model writes, to the bit."""

# mypy: disable-error-code="import-not-found, import-untyped"

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import pytest
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.qtensor import NVFP4QTensor
from tests.torch.quantizing import CONFIG, VOCABULARY, checkpoint, run, same, tensors_of, weights
from transformers import FalconH1ForCausalLM

from falcon_quantize import nvfp4


def export(source: Path, out: Path, forward: Callable[[Any], None] | None = None) -> Path:
    """ModelOpt's export of the same checkpoint: all linears but conv1d, and the KV cache where `forward` is given."""
    model = FalconH1ForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    config = copy.deepcopy(mtq.W4A16_NVFP4_CFG)
    # its own list of what stays knows conv1d below other names
    config["quant_cfg"].append({"quantizer_name": "*mamba.conv1d*", "enable": False})
    if forward:
        config = mtq.utils.update_quant_cfg_with_kv_cache_quant(config, mtq.FP8_KV_CFG["quant_cfg"])
    mtq.quantize(model, config, forward_loop=forward)
    export_hf_checkpoint(model, export_dir=out)
    return out


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("bf16") / "source")


def test_with_constant_kv_scales(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "ours") == 0
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(export(source, tmp_path / "theirs"))
    # with a constant ModelOpt writes none and leaves them to the engine, which then warns
    scales = {name: ours.pop(name) for name in list(ours) if name.endswith((".k_scale", ".v_scale"))}
    assert {(tensor.dtype, tuple(tensor.shape), tensor.item()) for tensor in scales.values()} == {
        (torch.float32, (), 1.0)
    }
    assert len(scales) == 2 * CONFIG["num_hidden_layers"]
    assert same(ours, theirs)


def test_with_calibrated_kv_scales_and_the_config(source: Path, tmp_path: Path) -> None:
    def forward(model: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        for prompt in torch.randint(VOCABULARY, (3, 48), generator=generator):
            model(prompt.unsqueeze(0))

    options = ("--kv-scales", "calibrated", "--calibration-prompts", "3", "--calibration-tokens", "48")
    assert run(source, tmp_path / "ours", *options) == 0
    export(source, tmp_path / "theirs", forward)
    assert same(tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs"))
    read = [json.loads((tmp_path / who / "hf_quant_config.json").read_text()) for who in ("ours", "theirs")]
    assert read[0] == read[1]
    ours, theirs = (json.loads((tmp_path / who / "config.json").read_text()) for who in ("ours", "theirs"))
    assert ours["quantization_config"] == theirs["quantization_config"]
    assert {k: v for k, v in ours.items() if k in CONFIG} == CONFIG


def test_what_vllm_computes_as_one_matrix_has_one_scale(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out") == 0
    tensors = tensors_of(tmp_path / "out")
    for layer in range(CONFIG["num_hidden_layers"]):
        for group in (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("feed_forward.gate_proj", "feed_forward.up_proj"),
        ):
            assert len({tensors[f"model.layers.{layer}.{part}.weight_scale_2"].item() for part in group}) == 1


def test_other_dtypes_are_converted_first(tmp_path: Path) -> None:
    exact = weights(torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32, torch.float16):
        name = str(dtype).rpartition(".")[2]
        # the same numbers in a wider type; FP16 holds BF16's of this size exactly
        assert (
            run(checkpoint(tmp_path / name, {k: v.to(dtype) for k, v in exact.items()}), tmp_path / f"{name}-out") == 0
        )
    read = {name: tensors_of(tmp_path / f"{name}-out") for name in ("bfloat16", "float32", "float16")}
    assert same(read["bfloat16"], read["float32"])
    same_numbers = {k: v for k, v in exact.items() if torch.equal(v.to(torch.float16).to(torch.bfloat16), v)}
    assert {k for k in read["bfloat16"] if not same({k: read["bfloat16"][k]}, {k: read["float16"][k]})}.isdisjoint(
        same_numbers
    )


def test_slices_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(96, 64).to(torch.bfloat16)
    (whole,) = nvfp4.quantize([weight])
    monkeypatch.setattr(nvfp4, "SLICE", 5 * 64)
    (sliced,) = nvfp4.quantize([weight])
    assert torch.equal(whole.packed, sliced.packed)
    assert torch.equal(whole.scale.view(torch.uint8), sliced.scale.view(torch.uint8))
    assert sliced.distance == pytest.approx(whole.distance)


def test_the_error_told_is_that_of_the_numbers_written(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out") == 0
    tensors, exact = tensors_of(tmp_path / "out"), weights()
    report = json.loads((tmp_path / "out/quantization-report.json").read_text())
    assert len(report["weights"]) == 9 * CONFIG["num_hidden_layers"]
    for weight in report["weights"]:
        name = weight["name"]
        back = NVFP4QTensor(exact[name].shape, torch.float32, tensors[name]).dequantize(
            scale=tensors[f"{name}_scale"], double_scale=tensors[f"{name}_scale_2"], block_sizes={-1: 16}
        )
        error = ((back - exact[name].float()).norm() / exact[name].float().norm()).item()
        assert weight["error"] == pytest.approx(error, rel=1e-4)
        assert 0.05 < error < 0.12
    assert report["bytes"]["result"] == sum(tensor.nbytes for tensor in tensors.values())
    assert {kept["name"] for kept in report["kept"]} == {n for n, t in tensors.items() if t.dtype == torch.bfloat16}


def test_zeros_stay_zeros() -> None:
    (made,) = nvfp4.quantize([torch.zeros(16, 32, dtype=torch.bfloat16)])
    assert made.packed.count_nonzero() == 0
    assert made.scale.float().isfinite().all()
    assert made.distance == 0


def test_keep_mamba_leaves_its_projections_and_names_them_so_that_vllm_finds_them(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out", "--keep-mamba") == 0
    tensors = tensors_of(tmp_path / "out")
    assert tensors["model.layers.1.mamba.in_proj.weight"].dtype == torch.bfloat16
    assert tensors["model.layers.1.feed_forward.up_proj.weight"].dtype == torch.uint8
    ignored = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["ignore"]
    assert ignored[-2:] == ["*in_proj*", "*out_proj*"]


def test_calibration_with_a_text_needs_words_and_a_tokenizer(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("once upon a time\n")
    options = ("--kv-scales", "calibrated", "--calibration-text", str(text))
    assert run(source, tmp_path / "out", *options) == 2
    assert "tokenizer.json cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [text]
