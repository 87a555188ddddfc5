"""Finds the greatest K and V of each layer on prompts, with transformers' own layers, one layer in memory at a time."""

# mypy: disable-error-code="import-not-found, import-untyped, no-any-return"
# (torch, transformers and tokenizers are only in the image)

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Kernels from the hub would be another program than the one that was tested.
os.environ.setdefault("USE_HUB_KERNELS", "NO")

import torch
from transformers import FalconH1Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.falcon_h1 import modeling_falcon_h1

from falcon_quantize.progress import say
from falcon_quantize.refusal import Refusal
from falcon_quantize.source import Source, load

# E4M3's greatest number: a scale is the greatest value in the cache divided by it, as in ModelOpt's export.
_E4M3_MAX = 448.0
_ATTENTION = "falcon_quantize"
_TOLD_SECONDS = 10


def kv_scales(source: Source, calibration: tuple[str, int, int], text: Path | None, device: str) -> dict[str, float]:
    """The scale of each layer's K and V by the name of the result's tensor; prompts are lines of `text`, or random."""
    config = _config(source)
    prompts = _prompts(source, config, calibration, text)
    say(f"calibrating K and V on {len(prompts)} prompts of up to {max(map(len, prompts))} tokens")
    embedding = load(source, source.tensors["model.embed_tokens.weight"], "cpu")
    hidden = [(embedding[prompt] * config.embedding_multiplier).unsqueeze(0).to(device) for prompt in prompts]
    del embedding
    rotary = modeling_falcon_h1.FalconH1RotaryEmbedding(config).to(device)
    positions = [rotary(h, position_ids=torch.arange(h.shape[1], device=device).unsqueeze(0)) for h in hidden]
    scales: dict[str, float] = {}
    last = time.monotonic()
    with torch.inference_mode(), _greatest(config) as greatest:
        layer = _empty_layer(config, device)
        for number in range(source.layers):
            _fill(layer, source, number, device)
            greatest.update(k=0.0, v=0.0)
            for index, states in enumerate(hidden):
                hidden[index] = layer(states, position_embeddings=positions[index])[0]
            for part in ("k", "v"):
                scales[f"model.layers.{number}.self_attn.{part}_proj.{part}_scale"] = _scale(greatest[part], number)
            if time.monotonic() - last > _TOLD_SECONDS:
                last = time.monotonic()
                say(f"calibrated {number + 1} of {source.layers} layers")
    return scales


def _config(source: Source) -> Any:
    try:
        return FalconH1Config.from_pretrained(source.directory)
    except Exception as error:  # whatever its classes find wrong with the file
        what = " ".join(str(error).split())[:300]
        raise Refusal(
            f"transformers does not take {source.directory / 'config.json'} ({what}). Use --kv-scales cast."
        ) from None


def _scale(greatest: float, number: int) -> float:
    if not math.isfinite(greatest):
        raise Refusal(f"Layer {number} gives NaN or infinity on the prompts. Use --kv-scales cast.")
    return torch.tensor(greatest or _E4M3_MAX).div(_E4M3_MAX).item()


def _prompts(source: Source, config: Any, calibration: tuple[str, int, int], text: Path | None) -> list[torch.Tensor]:
    _, count, length = calibration
    if text is None:
        tokens = torch.randint(config.vocab_size, (count, length), generator=torch.Generator().manual_seed(0))
        return list(tokens)
    from tokenizers import Tokenizer

    file = source.directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # it has no class of its own
        raise Refusal(f"{file} cannot be read ({error}); --calibration-text needs it. Leave that option out.") from None
    lines = [line for line in text.read_text(errors="replace").splitlines() if line.strip()]
    prompts = [torch.tensor(ids) for line in lines[:count] if (ids := tokenizer.encode(line).ids[:length])]
    if not prompts:
        raise Refusal(f"--calibration-text {text} has no line with a word in it.")
    if max(int(prompt.max()) for prompt in prompts) >= config.vocab_size:
        raise Refusal(f"{file} has tokens beyond config.json's vocab_size {config.vocab_size}. Leave the text out.")
    return prompts


@contextmanager
def _greatest(config: Any) -> Iterator[dict[str, float]]:
    """Have attention note the greatest K (rotated, as the cache holds it) and V that it is given."""
    found = {"k": 0.0, "v": 0.0}

    def attention(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        for part, states in (("k", key), ("v", value)):
            most = states.abs().max().float().item()
            found[part] = most if math.isnan(most) else max(found[part], most)
        return sdpa_attention_forward(module, query, key, value, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, attention)
    config._attn_implementation = _ATTENTION
    yield found


def _empty_layer(config: Any, device: str) -> Any:
    """A decoder layer that is filled with each layer's weights in turn."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        layer = modeling_falcon_h1.FalconH1DecoderLayer(config, layer_idx=0).eval().to(device)
    finally:
        torch.set_default_dtype(default)
    multipliers = modeling_falcon_h1.compute_mup_vector(config).to(device, torch.bfloat16)
    layer.mamba.register_buffer("mup_vector", multipliers, persistent=False)
    return layer


def _fill(layer: Any, source: Source, number: int, device: str) -> None:
    prefix = f"model.layers.{number}."
    weights = {
        name.removeprefix(prefix): load(source, tensor, device)
        for name, tensor in source.tensors.items()
        if name.startswith(prefix)
    }
    try:
        layer.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:300]
        raise Refusal(f"Layer {number} does not fit its config ({what}). Use --kv-scales cast.") from None
