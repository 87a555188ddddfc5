"""FalconH1ForCausalLM of vLLM 0.13 to 0.15, whose MLP and attention are told how they are quantized."""

# mypy: disable-error-code="import-not-found, misc"
# (vLLM and torch are only in the image that serves)

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from vllm.config import get_current_vllm_config
from vllm.model_executor.models import falcon_h1 as stock

_MLP, _ATTENTION = stock.FalconH1MLP, stock.Attention


def _told(part: Any) -> Any:
    """Makes the part with the model's quantization, which the layer that makes it leaves out."""

    def make(*args: Any, **kwargs: Any) -> Any:
        return part(*args, **{"quant_config": get_current_vllm_config().quant_config, **kwargs})

    return make


stock.FalconH1MLP = _told(_MLP)
stock.Attention = _told(_ATTENTION)


class FalconH1ForCausalLM(stock.FalconH1ForCausalLM):
    """The model as vLLM has it, from parts that know of their quantization."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the checkpoint's tensors; the KV cache's scales lie in it beside k_proj and v_proj."""
        names = {name for name, _ in self.named_parameters()}
        loaded: set[str] = super().load_weights(_renamed(weights, names))
        return loaded


def _renamed(weights: Iterable[tuple[str, torch.Tensor]], names: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in weights:
        for projection, scale in (("k_proj", "k_scale"), ("v_proj", "v_scale")):
            if name.endswith(f".{projection}.{scale}"):
                name = name.replace(f"{projection}.{scale}", f"attn.{scale}")
                break
        else:
            yield name, tensor
            continue
        if name in names:
            yield name, tensor
