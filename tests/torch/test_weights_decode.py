"""Decoding NVFP4, and what its two formats lose, against the formats' definitions."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import math
import sys
from pathlib import Path

import pytest
import torch

from falcon_weights import formats, nvfp4

sys.path.insert(0, str(Path(__file__).parent))
from nvfp4_checkpoint import E2M1, decoded, quantize


def every_byte_under_every_scale() -> tuple[torch.Tensor, torch.Tensor]:
    """All 256 bytes, 8 to a group, under each of the 127 scales that are no NaN and not negative."""
    packed = torch.arange(256, dtype=torch.uint8).repeat(127, 1)
    scales = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).unsqueeze(1).repeat(1, 32)
    return packed, scales


def test_every_byte_under_every_scale_is_exact() -> None:
    packed, scales = every_byte_under_every_scale()
    assert torch.equal(nvfp4.unscaled(packed, scales).double(), decoded(packed, scales, torch.tensor(1.0)))


def test_the_low_bits_of_a_byte_come_first() -> None:
    packed = torch.full((1, 8), 0x21, dtype=torch.uint8)
    one = torch.ones(1, 1).to(torch.float8_e4m3fn)
    assert nvfp4.decode(packed, one, 1.0)[0, :2].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("scale_2", [1.0, 0.0123, 3.4e-5, 1e-20])
def test_the_tensors_scale_is_rounded_once(scale_2: float) -> None:
    packed, scales = every_byte_under_every_scale()
    factor = torch.tensor(scale_2)
    assert torch.equal(nvfp4.decode(packed, scales, factor), decoded(packed, scales, factor).float())


def test_bf16_is_the_nearest() -> None:
    packed, scales, scale_2 = quantize(torch.randn(64, 256, generator=torch.Generator().manual_seed(3)))
    rounded, loss = formats.to_bf16(nvfp4.unscaled(packed, scales), scale_2)
    exact = decoded(packed, scales, scale_2)
    off = ((rounded.double() - exact) / exact.where(exact != 0, torch.ones(()).double())).abs().max().item()
    # Half of the last of eight bits, and a little of float32's.
    assert off <= 2**-8 * 0.5001 * 2
    assert loss.report()["largestRelative"] == pytest.approx(off, rel=1e-3)


def test_fp8_keeps_what_four_bits_can_hold_and_loses_no_more_than_any_fp8_does() -> None:
    packed, scales, scale_2 = quantize(torch.randn(96, 512, generator=torch.Generator().manual_seed(4)))
    unscaled = nvfp4.unscaled(packed, scales)
    rounded, row_scales, loss = formats.to_fp8(unscaled, scale_2)
    exact = decoded(packed, scales, scale_2)
    back = rounded.double() * row_scales.double()
    off = (back - exact).abs()
    assert rounded.float().isfinite().all()
    assert rounded.float().abs().amax() <= formats.FP8_MAX
    normal = rounded.float().abs() >= 2**-6
    assert (off[normal] <= exact.abs()[normal] / 16 * 1.0001).all()
    frobenius = (off.square().sum() / exact.square().sum()).sqrt().item()
    assert loss.report()["relativeFrobenius"] == pytest.approx(frobenius, rel=1e-3)
    # Numbers whose e2m1 is a power of two have four bits: none of them is lost.
    power = torch.isin(E2M1[(packed & 7).long()], torch.tensor([0.5, 1.0, 2.0, 4.0]))
    assert (off[:, ::2][power] <= exact.abs()[:, ::2][power] * 1e-6).all()
    # The usual scale, largest number to 448, loses more.
    usual = exact.abs().amax(1, keepdim=True) / formats.FP8_MAX
    usual_off = (exact / usual).float().to(torch.float8_e4m3fn).double() * usual - exact
    assert frobenius < (usual_off.square().sum() / exact.square().sum()).sqrt().item()


@pytest.mark.parametrize("largest", [448.0, 448.0001, 224.0, 1.0, 2688.0, 2**-9])
def test_a_rows_scale_is_the_least_power_of_two_that_fits(largest: float) -> None:
    row = torch.zeros(1, 16)
    row[0, 3] = largest
    rounded, scale, _ = formats.to_fp8(row, torch.tensor(1.0))
    assert scale.shape == (1, 1)
    assert math.log2(scale.item()).is_integer()
    assert largest / scale.item() <= formats.FP8_MAX < 2 * largest / scale.item()
    assert rounded.float().abs().amax().item() * scale.item() == pytest.approx(largest, rel=1 / 16)


def test_a_row_of_zeros_stays_one() -> None:
    rounded, scale, loss = formats.to_fp8(torch.zeros(2, 16), torch.tensor(0.5))
    assert rounded.float().abs().sum() == 0
    assert (scale > 0).all()
    assert loss.report() == {"relativeFrobenius": 0.0, "largestRelative": 0.0}


@pytest.mark.parametrize(
    ("module", "named", "others"),
    [
        (
            "model.layers.2.mamba.in_proj",
            ["model.layers.2.mamba.in_proj", "model.46.mixer.in_proj"],
            ["model.45.mixer.in_proj", "model.layers.12.mamba.in_proj", "model.46.mixer.out_proj"],
        ),
        (
            "model.layers.3.self_attn.o_proj",
            ["model.layers.3.self_attn.o_proj", "model.layers.3.o_proj"],
            ["model.layers.33.o_proj"],
        ),
        ("model.layers.1.feed_forward.up_proj", ["model.layers.1.feed_forward.up_proj"], ["model.layers.1.up_proj"]),
    ],
)
def test_what_stays_bf16_is_named_as_the_checkpoint_and_as_vllm_do(
    module: str, named: list[str], others: list[str]
) -> None:
    from compressed_tensors.utils import match_name

    pattern = formats.pattern(module, 44)
    assert [match_name(name, pattern) for name in (*named, *others)] == [True] * len(named) + [False] * len(others)


def test_vllm_reads_which_linears_are_fp8() -> None:
    from vllm.model_executor.layers.quantization.compressed_tensors.utils import should_ignore_layer

    config = formats.quantization_config("fp8", [f"model.layers.{i}.mamba.in_proj" for i in range(44)], 44, False)
    assert config is not None
    fused = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
    linears = ("layers.7.qkv_proj", "layers.7.o_proj", "layers.7.feed_forward.gate_up_proj", "51.mixer.out_proj")
    for name in linears:
        assert not should_ignore_layer(f"model.{name}", config["ignore"], fused), name
    for name in ("model.51.mixer.in_proj", "model.44.mixer.in_proj", "lm_head"):
        assert should_ignore_layer(name, config["ignore"], fused), name
