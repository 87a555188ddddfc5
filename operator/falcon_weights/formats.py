"""The two formats that a checkpoint is expanded to, and what is lost in each."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

FP8_MAX = 448.0
# Of float32.
_BIAS, _MANTISSA_BITS = 127, 23
# CUTLASS multiplies FP8 matrices whose sides are multiples of this. For others vLLM takes a slow kernel up to 0.25, and
# 0.26 fails while it pads them: such a matrix stays BF16. Of Falcon-H1R-7B it is the mixer's in_proj (6,680 rows).
FP8_ALIGNMENT = 16


@dataclass
class Loss:
    """What a format loses against the weights of the source, over all of them that were added."""

    error: float = 0.0
    square: float = 0.0
    largest: float = 0.0

    def add(self, other: "Loss") -> None:
        """Take another one's sums in."""
        self.error += other.error
        self.square += other.square
        self.largest = max(self.largest, other.largest)

    def report(self) -> dict[str, float]:
        """The relative error in the Frobenius norm, and the largest of one number."""
        frobenius = (self.error / self.square) ** 0.5 if self.square else 0.0
        return {"relativeFrobenius": float(f"{frobenius:.4g}"), "largestRelative": float(f"{self.largest:.4g}")}


def to_bf16(unscaled: torch.Tensor, scale_2: torch.Tensor) -> tuple[torch.Tensor, Loss]:
    """[rows, columns] bfloat16 of the same, and what that loses: rounding to eight significant bits."""
    exact = unscaled * scale_2
    rounded = exact.bfloat16()
    return rounded, _loss(exact, rounded.float(), torch.ones((), device=exact.device))


def to_fp8(unscaled: torch.Tensor, scale_2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Loss]:
    """[rows, columns] float8_e4m3fn, the scale of each row [rows, 1] float32, and what that loses.

    A row's scale is the tensor's times the least power of two that makes the row fit: so every number of the source
    that has four significant bits stays as it is, which with any other scale hardly one would.
    """
    largest = unscaled.abs().amax(1, keepdim=True)
    # By the bits of the exponent: exact, where logarithms and powers are not on every GPU. A row of zeros gets 1.
    mantissa, exponent = torch.frexp(largest / FP8_MAX)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    power = ((torch.where(largest > 0, exponent, 0) + _BIAS) << _MANTISSA_BITS).view(torch.float32)
    fitted = unscaled / power
    rounded = fitted.to(torch.float8_e4m3fn)
    scale = power * scale_2
    return rounded, scale, _loss(fitted, rounded.float(), scale)


def _loss(exact: torch.Tensor, rounded: torch.Tensor, scale: torch.Tensor) -> Loss:
    """`scale` [rows, 1], or of one number, is what both are to be multiplied by."""
    off = rounded - exact
    rows = torch.stack([off.square().sum(1), exact.square().sum(1)]).double() * scale.double().flatten().square()
    relative = (off / torch.where(exact == 0, 1.0, exact)).abs_().amax()
    error, square = rows.sum(1).tolist()
    return Loss(error, square, float(relative))


def fits_fp8(shape: tuple[int, ...]) -> bool:
    """Whether a matrix of this shape is one for fast FP8 kernels."""
    return all(side % FP8_ALIGNMENT == 0 for side in shape)


def quantization_config(form: str, kept: Iterable[str], layers: int, kv_scales: bool) -> dict[str, Any] | None:
    """What config.json says of the quantization, in compressed-tensors' words; None for plain BF16.

    `kept` are the modules of linears that stay BF16 in FP8. With `kv_scales` the KV cache's scales are in the
    checkpoint, which vLLM reads only where a quantization is named.
    """
    if form == "bf16" and not kv_scales:
        return None
    config: dict[str, Any] = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    config["quantization_status"] = "compressed"
    config["config_groups"], config["ignore"] = {}, ["re:.*"]
    if form == "fp8":
        numbers = {"num_bits": 8, "type": "float", "symmetric": True}
        config["config_groups"]["group_0"] = {
            "targets": ["Linear"],
            "weights": {**numbers, "strategy": "channel", "dynamic": False},
            "input_activations": {**numbers, "strategy": "token", "dynamic": True},
        }
        config["ignore"] = ["lm_head", *(pattern(module, layers) for module in sorted(kept))]
    config["kv_cache_scheme"] = (
        {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
        if kv_scales
        else None
    )
    return config


def pattern(module: str, layers: int) -> str:
    """A pattern for a module under the checkpoint's name and under vLLM's, which for Falcon-H1 is another.

    vLLM counts a layer's mixer from the number of layers on (`model.46.mixer.in_proj` is layer 2's of 44), and leaves
    `self_attn` out.
    """
    match = re.fullmatch(r"model\.layers\.(\d+)\.(self_attn|mamba)\.(\w+)", module)
    if match is None:
        return f"re:{re.escape(module)}$"
    number, part, leaf = match.groups()
    if part == "self_attn":
        return rf"re:model\.layers\.{number}\.(self_attn\.)?{leaf}$"
    return rf"re:model\.(layers\.{number}\.mamba|{layers + int(number)}\.mixer)\.{leaf}$"
