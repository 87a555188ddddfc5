"""Small Falcon-H1 checkpoints to quantize, made without a model, and what the tests compare."""

# mypy: disable-error-code="import-not-found, import-untyped"

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from falcon_quantize import cli

HIDDEN, INNER, VOCABULARY, LAYERS = 64, 96, 80, 2
CONFIG: dict[str, Any] = {
    "architectures": ["FalconH1ForCausalLM"],
    "model_type": "falcon_h1",
    "dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "key_multiplier": 0.5,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 32,
    "mamba_rms_norm": False,
    "mamba_norm_before_gate": False,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
# Of the real model, each layer and in all: docs of Falcon-H1R-7B.
REAL = {"hidden": 3072, "inner": 12288, "vocabulary": 130049, "layers": 44, "queries": 1536, "keys": 256}
REAL |= {"mamba": 3072, "mamba_in": 6680, "conv": 3584, "heads": 24}
SMALL = {"hidden": HIDDEN, "inner": INNER, "vocabulary": VOCABULARY, "layers": LAYERS, "queries": 64, "keys": 32}
SMALL |= {"mamba": 64, "mamba_in": 164, "conv": 96, "heads": 4}


def shapes(of: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a Falcon-H1."""
    hidden, inner, mamba = of["hidden"], of["inner"], of["mamba"]
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "pre_ff_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (of["queries"], hidden),
        "self_attn.k_proj.weight": (of["keys"], hidden),
        "self_attn.v_proj.weight": (of["keys"], hidden),
        "self_attn.o_proj.weight": (hidden, of["queries"]),
        "mamba.A_log": (of["heads"],),
        "mamba.D": (of["heads"],),
        "mamba.dt_bias": (of["heads"],),
        "mamba.conv1d.weight": (of["conv"], 1, 4),
        "mamba.conv1d.bias": (of["conv"],),
        "mamba.in_proj.weight": (of["mamba_in"], hidden),
        "mamba.out_proj.weight": (hidden, mamba),
        "feed_forward.gate_proj.weight": (inner, hidden),
        "feed_forward.up_proj.weight": (inner, hidden),
        "feed_forward.down_proj.weight": (hidden, inner),
    }
    ends = {"model.embed_tokens.weight": (of["vocabulary"], hidden), "lm_head.weight": (of["vocabulary"], hidden)}
    ends["model.final_layernorm.weight"] = (hidden,)  # type: ignore[assignment]
    return {**ends, **{f"model.layers.{n}.{name}": s for n in range(of["layers"]) for name, s in layer.items()}}


def weights(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Random weights, the same each time."""
    generator = torch.Generator().manual_seed(7)
    made = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes(SMALL).items()}
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def checkpoint(directory: Path, tensors: dict[str, torch.Tensor] | None = None, files: int = 3, **config: Any) -> Path:
    """Write a checkpoint whose tensors are spread over files without regard to layers."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    tensors = weights() if tensors is None else tensors
    named = {f"model-{n}.safetensors": dict(list(tensors.items())[n::files]) for n in range(files)}
    for file, part in named.items():
        save_file(part, directory / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in named.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def hollow(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """Write a safetensors file whose header is true and whose numbers are a hole, which takes no room."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 2 if dtype == "BF16" else 1
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def run(source: Path, out: Path, *options: str) -> int:
    """The exit status of the command."""
    return cli.main([str(source), "--out", str(out), "--device", "cpu", *options])


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    return {k: v for file in sorted(directory.glob("*.safetensors")) for k, v in load_file(file).items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are the same to the bit."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and torch.equal(left[name].flatten().view(torch.uint8), right[name].flatten().view(torch.uint8))
        for name in left
    )


def contents(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Each file with its bytes; of the report, what does not tell of the run itself."""
    for path in sorted(directory.rglob("*")):
        if path.name == "quantization-report.json":
            report = json.loads(path.read_text())
            del report["run"]
            yield path.name, json.dumps(report).encode()
        elif path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()
