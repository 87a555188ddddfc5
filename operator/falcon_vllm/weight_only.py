"""NVFP4 weights without scales of activations, in versions of vLLM that have no sound way to multiply them."""

# mypy: disable-error-code="import-not-found, misc"
# (vLLM and torch are only in the image that serves)

import inspect
import logging
import math
from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.modelopt import ModelOptNvFp4LinearMethod
from vllm.model_executor.layers.quantization.utils.marlin_utils_fp4 import (
    apply_fp4_marlin_linear,
    is_fp4_marlin_supported,
    prepare_fp4_layer_for_marlin,
)

from falcon_vllm.nvfp4 import dequantize

_log = logging.getLogger("vllm.falcon")
# What a layer calls the scale of its whole tensor where Marlin looks for it: weight_scale_2 up to vLLM 0.15.
_MARLIN_SCALE = list(inspect.signature(apply_fp4_marlin_linear).parameters)[3]
# Marlin's tiles. Rows are filled up with zeros; Falcon-H1R's other side always fits.
_TILE_ROWS, _TILE_COLUMNS = 64, 128
_said: set[str] = set()


class FalconWeightOnlyMethod(ModelOptNvFp4LinearMethod):
    """One layer: as Marlin multiplies it where that can be, else in the model's own type; activations stay as they are.

    A layer whose checkpoint has scales of activations is vLLM's own business.
    """

    def __init__(self, quant_config: Any) -> None:
        # Not super's yet: it takes a kernel that quantizes activations, and refuses where there is none.
        self.quant_config = quant_config
        self.marlin_input_dtype = None
        self._multiply = super().apply
        self._rows = 0

    def create_weights(self, layer: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        """Make the parameters, filled with what says later whether the checkpoint had them.

        Raises `RuntimeError` for Mamba's in_proj on several GPUs: these versions would split it in the wrong places.
        """
        name = getattr(layer, "prefix", "")
        if name.endswith("in_proj") and getattr(layer, "tp_size", 1) > 1:
            raise RuntimeError(f"falcon: {name} is quantized: this vLLM can only split it among GPUs where it is not")
        super().create_weights(layer, *args, **kwargs)
        for name in ("input_scale", "weight_scale", "weight_scale_2"):
            getattr(layer, name).data.fill_(math.nan)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Bring the weight into the form that it is multiplied in. Raises `RuntimeError` where it was not loaded."""
        for name in ("input_scale", "weight_scale_2"):
            # Of Mamba's in_proj, five parts in one tensor, vLLM up to 0.19 only sets the first part's.
            loaded = getattr(layer, name).data
            # (a copy: a GPU does not write a tensor's own value into it by a mask)
            loaded[torch.isnan(loaded)] = loaded[0].clone()
        scales = layer.weight_scale_2.data
        if torch.isnan(layer.weight_scale.float()).any() or torch.isnan(scales).any():
            name = getattr(layer, "prefix", "") or "a layer"
            raise RuntimeError(
                f"falcon: {name} has no NVFP4 scales in the checkpoint, and its `ignore` does not name it"
            )
        alone = torch.isnan(layer.input_scale).any() or getattr(self.quant_config, "quant_method", "") == "W4A16_NVFP4"
        if not alone:
            super().__init__(self.quant_config)
            super().process_weights_after_loading(layer)
            return
        del layer.input_scale, layer.weight_scale_2
        fits = layer.input_size_per_partition % _TILE_COLUMNS == 0 and getattr(layer, "bias", None) is None
        if fits and bool((scales == scales[0]).all()) and is_fp4_marlin_supported():
            self._to_marlin(layer, scales[0])
        else:
            self._to_plain(layer, scales)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply [tokens, in] to [tokens, out]."""
        output: torch.Tensor = self._multiply(layer, x, bias)
        return output

    def _to_marlin(self, layer: torch.nn.Module, scale: torch.Tensor) -> None:
        rows = layer.output_size_per_partition
        self._rows = -(-rows // _TILE_ROWS) * _TILE_ROWS
        for name in ("weight", "weight_scale"):
            filled = _with_rows(getattr(layer, name).data, self._rows)
            setattr(layer, name, torch.nn.Parameter(filled, requires_grad=False))
        setattr(layer, _MARLIN_SCALE, torch.nn.Parameter(scale, requires_grad=False))
        layer.output_size_per_partition = self._rows  # where Marlin looks for it
        prepare_fp4_layer_for_marlin(layer)
        layer.output_size_per_partition = rows
        self._multiply = self._by_marlin
        _say("NVFP4 weights are multiplied by Marlin, activations stay as they are")

    def _by_marlin(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        scale = getattr(layer, _MARLIN_SCALE)
        sizes = (self._rows, layer.input_size_per_partition)
        output: torch.Tensor = apply_fp4_marlin_linear(
            x, layer.weight, layer.weight_scale, scale, layer.workspace, *sizes
        )
        if self._rows != layer.output_size_per_partition:
            output = output[..., : layer.output_size_per_partition].contiguous()
        return output if bias is None else output + bias

    def _to_plain(self, layer: torch.nn.Module, scales: torch.Tensor) -> None:
        widths = torch.tensor(layer.logical_widths, device=scales.device)
        of_row = scales.repeat_interleave(widths).unsqueeze(-1)
        weight = dequantize(layer.weight.data, layer.weight_scale.data, of_row, layer.params_dtype)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        del layer.weight_scale
        plain = UnquantizedLinearMethod()
        plain.process_weights_after_loading(layer)
        self._multiply = plain.apply
        _say(f"NVFP4 weights that Marlin cannot take become {layer.params_dtype}, four times as large")


def _with_rows(matrix: torch.Tensor, rows: int) -> torch.Tensor:
    """The matrix with rows of zeros below it, up to so many."""
    filled = torch.zeros((rows, matrix.shape[1]), dtype=torch.uint8, device=matrix.device)
    filled[: matrix.shape[0]] = matrix.view(torch.uint8)
    return filled.view(matrix.dtype)


def _say(sentence: str) -> None:
    """Once for all layers."""
    if sentence not in _said:
        _said.add(sentence)
        _log.info("falcon: %s", sentence)
