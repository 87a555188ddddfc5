"""Decodes packed NVFP4: two numbers a byte, a scale for every 16 of them, and one for the whole tensor."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import functools

import torch

GROUP = 16
# What the four bits of an e2m1 number stand for; the highest bit is the sign.
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@functools.cache
def _pairs(device: torch.device) -> torch.Tensor:
    """[256] int64: the two float32 of every byte side by side, so that one look-up gives both."""
    numbers = torch.tensor([*MAGNITUDES, *(-m for m in MAGNITUDES)], dtype=torch.float32)
    byte = torch.arange(256)
    return torch.stack([numbers[byte & 15], numbers[byte >> 4]], 1).view(torch.int64).flatten().to(device)


def unscaled(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Numbers times their group's scale, without the tensor's: exact in float32, of at most six significant bits.

    `packed` is [rows, columns / 2] uint8, the low four bits first; `scales` is [rows, columns / 16] float8_e4m3fn.
    Returns [rows, columns] float32.
    """
    rows, half = packed.shape
    numbers = _pairs(packed.device).index_select(0, packed.flatten().to(torch.int32)).view(torch.float32)
    return (numbers.view(rows, -1, GROUP) * scales.float().unsqueeze(-1)).view(rows, 2 * half)


def decode(packed: torch.Tensor, scales: torch.Tensor, scale_2: torch.Tensor | float) -> torch.Tensor:
    """The weights, [rows, columns] float32: number x group's scale x tensor's scale, rounded once."""
    return unscaled(packed, scales).mul_(scale_2)
