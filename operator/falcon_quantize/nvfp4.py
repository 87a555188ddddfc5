"""Turns weights into NVFP4 with ModelOpt's own code, a slice of rows at a time, and says how far the result is off."""

# mypy: disable-error-code="import-not-found, import-untyped"
# (torch and ModelOpt are only in the image)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from modelopt.torch.quantization.qtensor import NVFP4QTensor

from falcon_quantize.layers import BLOCK
from falcon_quantize.plan import SLICE


@dataclass(frozen=True)
class Quantized:
    """One weight in NVFP4: `packed` U8 [out, in/2], `scale` F8_E4M3 [out, in/16], `scale_2` F32 []; all on the CPU."""

    packed: torch.Tensor
    scale: torch.Tensor
    scale_2: torch.Tensor
    # ||W - Wq|| and ||W||, Frobenius norms.
    distance: float
    norm: float


def quantize(weights: Sequence[torch.Tensor]) -> list[Quantized]:
    """Quantize BF16 matrices that share one second-level scale; raise `ValueError` where one holds no finite number.

    The scales are those of the whole matrix, and all else is a matter of single blocks: slices change no bit.
    """
    scale_2 = torch.stack([NVFP4QTensor.get_weights_scaling_factor_2(weight) for weight in weights]).max()
    if not math.isfinite(scale_2.item()):
        raise ValueError("it holds NaN or infinite numbers")
    if scale_2.item() == 0:
        scale_2 = torch.ones_like(scale_2)  # all zeros: any scale will do, but 0 / 0 will not
    return [_quantize(weight, scale_2) for weight in weights]


def _quantize(weight: torch.Tensor, scale_2: torch.Tensor) -> Quantized:
    rows = max(1, SLICE // weight.shape[1])
    packed, scales = [], []
    distance = norm = 0.0
    for part in weight.split(rows):
        scale = NVFP4QTensor.get_weights_scaling_factor(part, BLOCK, scale_2)[0]
        result = NVFP4QTensor.quantize(part, BLOCK, scale, scale_2)[0]
        back = result.dequantize(torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: BLOCK})
        exact = part.float()
        norm += exact.norm().item() ** 2
        distance += back.sub_(exact).norm().item() ** 2
        packed.append(result._quantized_data.cpu())
        scales.append(scale.cpu())
    return Quantized(torch.cat(packed), torch.cat(scales), scale_2.cpu(), math.sqrt(distance), math.sqrt(norm))
