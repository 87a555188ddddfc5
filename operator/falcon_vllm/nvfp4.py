"""NVFP4 weights as numbers: two FP4 values a byte, an FP8 scale for 16 of them, one scale for the whole tensor."""

# mypy: disable-error-code="import-not-found"
# (torch is only where vLLM is)

import torch

BLOCK = 16
# E2M1 by its four bits; the eighth and later are the negative ones.
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = torch.tensor([*_MAGNITUDES, *(-m for m in _MAGNITUDES)])


def dequantize(
    packed: torch.Tensor, block_scale: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The weight [out, in] in `dtype`.

    `packed` is uint8 [out, in / 2], the lower four bits first; `block_scale` float8_e4m3fn [out, in / 16]; `scale` a
    number, or one a row [out, 1]. The last product is rounded to float32, then to `dtype`. Raises `ValueError` where
    the shapes do not fit.
    """
    rows, columns = packed.shape[0], packed.shape[1] * 2
    if packed.dtype != torch.uint8 or columns % BLOCK or block_scale.shape != (rows, columns // BLOCK):
        shapes = f"{packed.dtype} {tuple(packed.shape)} with scales {tuple(block_scale.shape)}"
        raise ValueError(f"{shapes} is no NVFP4 weight: uint8 [out, in / 2] has scales [out, in / {BLOCK}]")
    codes = torch.stack((packed & 0xF, packed >> 4), dim=-1).view(rows, columns // BLOCK, BLOCK)
    values = _VALUES.to(packed.device)[codes.int()]
    # A value times its block's scale has few enough bits to be exact.
    weight = (values * block_scale.float().unsqueeze(-1)).view(rows, columns)
    return (weight * scale.float().reshape(-1, 1)).to(dtype)
