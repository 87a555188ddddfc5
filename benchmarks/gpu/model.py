"""A checkpoint of Falcon-H1R-7B's shape with random weights in BF16: `python -m benchmarks.gpu.model DIR`."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """What a Falcon-H1 model's tensors are sized by. The default is Falcon-H1R-7B."""

    layers: int = 44
    hidden: int = 3072
    intermediate: int = 12288
    vocabulary: int = 130049
    heads: int = 12
    kv_heads: int = 2
    head_dim: int = 128
    ssm: int = 3072
    ssm_heads: int = 24
    ssm_head_dim: int = 128
    state: int = 256
    groups: int = 1
    convolution: int = 4
    chunk: int = 256


TINY = Shape(layers=2, hidden=128, intermediate=256, vocabulary=1024, heads=4, kv_heads=2, head_dim=32,
             ssm=128, ssm_heads=4, ssm_head_dim=32, state=32, chunk=64)  # fmt: skip
# Logits of a trained model differ by some units. With this factor, those of random weights do too: without it, which
# token is the most likely hangs on the last bit.
_HEAD_SCALE = 100.0


def config(shape: Shape) -> dict[str, Any]:
    """The checkpoint's config.json, with Falcon-H1R-7B's multipliers."""
    return {
        "architectures": ["FalconH1ForCausalLM"],
        "model_type": "falcon_h1",
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e11,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "projectors_bias": False,
        "mamba_d_ssm": shape.ssm,
        "mamba_n_heads": shape.ssm_heads,
        "mamba_d_head": shape.ssm_head_dim,
        "mamba_d_state": shape.state,
        "mamba_n_groups": shape.groups,
        "mamba_d_conv": shape.convolution,
        "mamba_expand": 2,
        "mamba_chunk_size": shape.chunk,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_norm_before_gate": False,
        "mamba_rms_norm": False,
        "mamba_use_mlp": True,
        "bos_token_id": 1,
        "eos_token_id": 11,
        "pad_token_id": 0,
        "embedding_multiplier": 5.656854249492381,
        "lm_head_multiplier": 0.01953125,
        "key_multiplier": 0.08838834764831845,
        "attention_in_multiplier": 1.0,
        "attention_out_multiplier": 0.9375,
        "ssm_in_multiplier": 1.25,
        "ssm_out_multiplier": 0.23570226039551587,
        "mlp_multipliers": [0.8838834764831844, 0.5859375],
        "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
    }


def layer(number: int, shape: Shape, device: str) -> dict[str, Any]:
    """One decoder layer's tensors. Linear weights keep the variance; the state decays as a trained one's may."""
    import torch

    def normal(*size: int, scale: float = 1.0) -> Any:
        spread = scale / math.sqrt(size[-1])
        return (torch.randn(*size, device=device, dtype=torch.float32) * spread).to(torch.bfloat16)

    def ones(size: int) -> Any:
        return torch.ones(size, device=device, dtype=torch.bfloat16)

    mixed = shape.ssm + 2 * shape.groups * shape.state
    # Steps between 0.001 and 0.1 and decays from 1 to 16: the state then remembers tens to thousands of tokens.
    step = torch.exp(torch.rand(shape.ssm_heads) * math.log(100) + math.log(0.001))
    bias = step + torch.log(-torch.expm1(-step))
    decay = torch.log(1 + 15 * torch.rand(shape.ssm_heads))
    prefix = f"model.layers.{number}."
    tensors = {
        "input_layernorm.weight": ones(shape.hidden),
        "pre_ff_layernorm.weight": ones(shape.hidden),
        "feed_forward.gate_proj.weight": normal(shape.intermediate, shape.hidden),
        "feed_forward.up_proj.weight": normal(shape.intermediate, shape.hidden),
        "feed_forward.down_proj.weight": normal(shape.hidden, shape.intermediate),
        "self_attn.q_proj.weight": normal(shape.heads * shape.head_dim, shape.hidden),
        "self_attn.k_proj.weight": normal(shape.kv_heads * shape.head_dim, shape.hidden),
        "self_attn.v_proj.weight": normal(shape.kv_heads * shape.head_dim, shape.hidden),
        "self_attn.o_proj.weight": normal(shape.hidden, shape.heads * shape.head_dim),
        "mamba.in_proj.weight": normal(shape.ssm + mixed + shape.ssm_heads, shape.hidden),
        "mamba.out_proj.weight": normal(shape.hidden, shape.ssm),
        "mamba.conv1d.weight": normal(mixed, 1, shape.convolution),
        "mamba.conv1d.bias": normal(mixed, scale=0.1),
        "mamba.A_log": decay.to(torch.bfloat16),
        "mamba.D": ones(shape.ssm_heads),
        "mamba.dt_bias": bias.to(torch.bfloat16),
    }
    return {prefix + name: tensor for name, tensor in tensors.items()}


def ends(shape: Shape, device: str) -> dict[str, Any]:
    """Embedding, last norm and head."""
    import torch

    def table(scale: float) -> Any:
        values = torch.randn(shape.vocabulary, shape.hidden, device=device, dtype=torch.bfloat16)
        return values * (scale / math.sqrt(shape.hidden))

    return {
        "model.embed_tokens.weight": table(10.0),
        "model.final_layernorm.weight": torch.ones(shape.hidden, dtype=torch.bfloat16),
        "lm_head.weight": table(_HEAD_SCALE),
    }


def write(directory: Path, shape: Shape, device: str, seed: int = 0) -> int:
    """Write the whole checkpoint; the result is its size in bytes."""
    import torch

    torch.manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config(shape), indent=1))
    tokens = {"bos_token_id": 1, "eos_token_id": 11, "pad_token_id": 0}
    (directory / "generation_config.json").write_text(json.dumps(tokens))
    _tokenizer(directory, shape.vocabulary)
    placed: dict[str, str] = {}
    with ThreadPoolExecutor(4) as writers:
        pending: list[Future[None]] = []
        for number, tensors in enumerate(_shards(shape, device)):
            name = f"model-{number + 1:05d}-of-{shape.layers + 1:05d}.safetensors"
            placed.update(dict.fromkeys(tensors, name))
            pending.append(writers.submit(_save, {k: v.cpu() for k, v in tensors.items()}, directory / name))
            if len(pending) > 8:
                pending.pop(0).result()
        for future in pending:
            future.result()
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    index["metadata"] = {"total_size": size}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def _shards(shape: Shape, device: str) -> Iterator[dict[str, Any]]:
    yield ends(shape, device)
    for number in range(shape.layers):
        yield layer(number, shape, device)


def _save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def _tokenizer(directory: Path, vocabulary: int) -> None:
    """Word `w17` is token 17: a prompt's length in tokens is its length in words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "w1",
        "eos_token": "w11",
        "pad_token": "w0",
        "unk_token": "w3",
        "model_max_length": 262144,
        "chat_template": "{% for m in messages %}w5 {{ m['content'] }} {% endfor %}w6",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(told, indent=1))


def main() -> None:
    """Write it, and say how large it became."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.model", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="two small layers, for a machine without a GPU")
    options = parser.parse_args()
    began = time.monotonic()
    size = write(options.directory, TINY if options.tiny else Shape(), options.device)
    print(f"{options.directory}: {size / 2**30:.2f} GiB in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
