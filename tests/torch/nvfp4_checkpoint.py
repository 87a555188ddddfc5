"""Makes small NVFP4 checkpoints of Falcon-H1's shape, without a quantizer's help."""

# mypy: disable-error-code="import-not-found"
# (torch is only in the engine's image)

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["FalconH1ForCausalLM"],
    "model_type": "falcon_h1",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"},
}
# Rows and columns; in_proj's rows are no multiple of 16, as in Falcon-H1R-7B.
LINEARS = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mamba.in_proj": (200, 64),
    "mamba.out_proj": (64, 96),
    "feed_forward.gate_proj": (128, 64),
    "feed_forward.up_proj": (128, 64),
    "feed_forward.down_proj": (64, 128),
}
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed numbers, scales of groups and of the tensor: the plain recipe, largest number to largest number."""
    scale_2 = weight.abs().amax().float() / (6 * 448)
    groups = weight.float().view(weight.shape[0], -1, 16)
    scales = (groups.abs().amax(-1) / (6 * scale_2)).to(torch.float8_e4m3fn)
    scaled = groups / (scales.float().clamp(min=1e-9).unsqueeze(-1) * scale_2)
    codes = (scaled.abs().unsqueeze(-1) - E2M1).abs().argmin(-1) | ((scaled < 0).long() << 3)
    codes = codes.view(weight.shape).to(torch.uint8)
    return codes[:, ::2] | (codes[:, 1::2] << 4), scales, scale_2


def write(directory: Path, *, files: int = 2, kv: float | None = 0.25, layers: int = 2, wide: int = 1) -> Path:
    """A checkpoint whose modules' tensors are spread over the files; `wide` multiplies the rows and columns."""
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(7)
    found: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        for name, (rows, columns) in LINEARS.items():
            full = f"model.layers.{layer}.{name}"
            weight = torch.randn(rows * wide, columns * wide, generator=generator) * 0.02
            packed, scales, scale_2 = quantize(weight)
            found |= {f"{full}.weight": packed, f"{full}.weight_scale": scales, f"{full}.weight_scale_2": scale_2}
        mamba = f"model.layers.{layer}.mamba"
        found[f"{mamba}.conv1d.weight"] = torch.randn(96, 1, 4, generator=generator).bfloat16()
        found |= {
            f"{mamba}.{name}": torch.rand(7, generator=generator).bfloat16() for name in ("A_log", "D", "dt_bias")
        }
        if kv is not None:
            attention = f"model.layers.{layer}.self_attn"
            found |= {f"{attention}.k_proj.k_scale": torch.tensor(kv), f"{attention}.v_proj.v_scale": torch.tensor(kv)}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found[name] = torch.randn(100, 64, generator=generator).bfloat16()
    names = (
        [f"model-{i + 1:05}-of-{files:05}.safetensors" for i in range(files)] if files > 1 else ["model.safetensors"]
    )
    # Round and round, so that a module's weights and scales are in different files.
    placed = {name: names[i % files] for i, name in enumerate(sorted(found))}
    for file in names:
        save_file({n: found[n].contiguous() for n in found if placed[n] == file}, directory / file, {"format": "pt"})
    if files > 1:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "hf_quant_config.json").write_text("{}")
    (directory / "tokenizer.json").write_text('{"a": "tokenizer"}')
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    return directory


def decoded(packed: torch.Tensor, scales: torch.Tensor, scale_2: torch.Tensor) -> torch.Tensor:
    """The weights by the format's definition, one number after the other, in float64."""
    rows, half = packed.shape
    out = torch.zeros(rows, 2 * half, dtype=torch.float64)
    bytes_, groups = packed.tolist(), scales.double().tolist()
    for row in range(rows):
        for column in range(2 * half):
            code = bytes_[row][column // 2] >> (4 * (column % 2)) & 15
            exponent, mantissa = code >> 1 & 3, code & 1
            magnitude = mantissa * 0.5 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
            out[row, column] = (-magnitude if code & 8 else magnitude) * groups[row][column // 16]
    return out * scale_2.double()
