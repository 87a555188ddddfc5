"""A tiny NVFP4 checkpoint of random weights and the BF16 one that stands for the same numbers.

Unpacked by plain loops over numbers, so that what unpacks them in the project has something to be held against.
"""

# mypy: disable-error-code="import-not-found"
# (torch is only in the image of these tests)

import json
import random
import shutil
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Layers whose weights vLLM puts together: they must share the scale of the whole tensor.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SINGLE = ("o_proj", "in_proj", "out_proj", "down_proj")


def e4m3(code: int) -> Fraction:
    """The number that eight bits mean: sign, four bits of exponent, three of mantissa."""
    exponent, mantissa = code >> 3 & 15, code & 7
    size = (
        Fraction(mantissa, 8) * Fraction(1, 64)
        if exponent == 0
        else (1 + Fraction(mantissa, 8)) * Fraction(2) ** (exponent - 7)
    )
    return -size if code & 128 else size


def e2m1(code: int) -> Fraction:
    """The number that four bits mean: sign, two bits of exponent, one of mantissa."""
    exponent, mantissa = code >> 1 & 3, code & 1
    size = Fraction(mantissa, 2) if exponent == 0 else (1 + Fraction(mantissa, 2)) * 2 ** (exponent - 1)
    return -size if code & 8 else size


def float32(number: Fraction) -> float:
    """The nearest float32: Python's own float is one of 53 bits."""
    return float(struct.unpack("<f", struct.pack("<f", float(number)))[0])


def unpack(packed: torch.Tensor, block_scale: torch.Tensor, scale: float) -> torch.Tensor:
    """[out, in] float32 of [out, in / 2] bytes, number by number."""
    codes, scales = packed.tolist(), block_scale.view(torch.uint8).tolist()
    exact = Fraction(scale)
    rows = []
    for bytes_, scale_codes in zip(codes, scales, strict=True):
        row = []
        for place, byte in enumerate(bytes_):
            block = e4m3(scale_codes[place * 2 // 16]) * exact
            row += [float32(e2m1(byte & 15) * block), float32(e2m1(byte >> 4) * block)]
        rows.append(row)
    return torch.tensor(rows)


def pack(weight: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The bytes [out, in / 2] and the scales of 16 values each [out, in / 16]."""
    rows, columns = weight.shape
    blocks = weight.float().reshape(rows, columns // 16, 16)
    block_scale = (blocks.abs().amax(-1) / 6 / scale).to(torch.float8_e4m3fn)
    steps = torch.tensor(FP4)
    ratio = blocks / (block_scale.float() * scale).clamp(min=1e-30).unsqueeze(-1)
    codes = (ratio.abs().unsqueeze(-1) - steps).abs().argmin(-1) + 8 * (ratio < 0)
    codes = codes.reshape(rows, columns).to(torch.uint8)
    return codes[:, 0::2] | codes[:, 1::2] << 4, block_scale


def write(model: Path, directory: Path, *, kv_cache: bool = True) -> tuple[Path, Path]:
    """The NVFP4 form of the BF16 checkpoint `model`, and the BF16 one of the numbers that it stands for."""
    quantized, plain = directory / "nvfp4", directory / "bf16"
    for place in (quantized, plain):
        place.mkdir(parents=True)
        for file in model.iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, place)
    tensors = load_file(model / "model.safetensors")
    packed, numbers = dict(tensors), dict(tensors)
    for names in _groups(list(tensors)):
        scale = float32(Fraction(max(float(tensors[n].abs().max()) for n in names) / (6 * 448)))
        for name in names:
            base = name.removesuffix(".weight")
            packed[name], packed[f"{base}.weight_scale"] = pack(tensors[name], scale)
            packed[f"{base}.weight_scale_2"] = torch.tensor(scale)
            numbers[name] = unpack(packed[name], packed[f"{base}.weight_scale"], scale).bfloat16()
            if kv_cache and base.endswith(("k_proj", "v_proj")):
                packed[f"{base}.{base[-6]}_scale"] = torch.tensor(0.01 if "k_proj" in base else 0.02)
    save_file(packed, quantized / "model.safetensors", metadata={"format": "pt"})
    save_file(numbers, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = quantization(kv_cache)
    (quantized / "config.json").write_text(json.dumps(config))
    return quantized, plain


def quantization(kv_cache: bool) -> dict[str, Any]:
    """What ModelOpt writes into config.json."""
    weights = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    cache = {"kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}} if kv_cache else {}
    return {
        "quant_method": "modelopt",
        "quant_algo": "W4A16_NVFP4",
        "ignore": ["lm_head", "model.embed_tokens", "*mamba.conv1d*"],
        "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}},
        "producer": {"name": "modelopt", "version": "0.47.0"},
        **cache,
    }


def _groups(names: list[str]) -> list[list[str]]:
    """The weights to quantize, those together that share a scale."""
    groups = [[n] for n in names if n.endswith(tuple(f".{s}.weight" for s in SINGLE))]
    for together in TOGETHER:
        first = f".{together[0]}.weight"
        groups += [[n.replace(first, f".{o}.weight") for o in together] for n in names if n.endswith(first)]
    return groups


def random_weight(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Numbers of many sizes, in blocks of their own size each."""
    source = random.Random(seed)
    sizes = [10 ** source.uniform(-3, 1) for _ in range(rows * columns // 16)]
    return torch.tensor([source.gauss(0, sizes[i // 16]) for i in range(rows * columns)]).reshape(rows, columns)
