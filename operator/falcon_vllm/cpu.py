"""NVFP4 on CPU, for development and tests: weights become BF16 when they are loaded, and are multiplied as such."""

# mypy: disable-error-code="import-not-found, misc"
# (vLLM and torch are only in the image that serves)

import logging

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.platforms import current_platform

from falcon_vllm.nvfp4 import dequantize

try:
    from vllm.model_executor.kernels.linear.nvfp4.base import NvFp4LinearKernel, NvFp4LinearLayerConfig
    from vllm.model_executor.layers.quantization import modelopt
    from vllm.model_executor.layers.quantization.modelopt import init_nvfp4_linear_kernel
except ImportError as error:
    raise RuntimeError(f"falcon: {error}; NVFP4 on CPU is for development, with vLLM 0.32 or newer") from error

_log = logging.getLogger("vllm.falcon")


class DequantizedKernel(NvFp4LinearKernel):
    """What vLLM calls a kernel, of one layer: its weight in the model's own type and that type's multiplication."""

    def __init__(self, config: NvFp4LinearLayerConfig) -> None:
        super().__init__(config)
        self._dtype = torch.get_default_dtype()  # the model's, while its layers are made
        self._linear = UnquantizedLinearMethod()

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        """Everywhere."""
        return True, None

    @classmethod
    def can_implement(cls, config: NvFp4LinearLayerConfig) -> tuple[bool, str | None]:
        """Every layer."""
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Replace the packed weight [out, in / 2] by the numbers [out, in] that it stands for."""
        weight = dequantize(layer.weight, layer.weight_scale, layer.weight_global_scale, self._dtype)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        del layer.weight_scale
        self._linear.process_weights_after_loading(layer)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply [tokens, in] to [tokens, out]."""
        output: torch.Tensor = self._linear.apply(layer, x, bias)
        return output


def register() -> None:
    """Take vLLM's choice of a kernel over where the platform is a CPU: vLLM has NVFP4 for GPUs alone."""
    if current_platform.is_cpu() and modelopt.init_nvfp4_linear_kernel is init_nvfp4_linear_kernel:
        modelopt.init_nvfp4_linear_kernel = _choose
        _log.info("falcon: NVFP4 weights become BF16 on this CPU, four times as large; activations stay as they are")


def _choose(use_a16: bool = False) -> NvFp4LinearKernel:
    """In place of vLLM's own choice; a checkpoint with scales for activations is multiplied as one without."""
    return DequantizedKernel(NvFp4LinearLayerConfig())
