"""Falcon-H1 in NVFP4 for vLLM 0.13 to 0.23: what its own code lacks, put in before the model is built."""

# mypy: disable-error-code="import-not-found"
# (vLLM is only in the image that serves)

import importlib.metadata
import logging

from vllm import ModelRegistry
from vllm.model_executor.layers import linear
from vllm.model_executor.layers.quantization import modelopt

from falcon_vllm.weight_only import FalconWeightOnlyMethod

_log = logging.getLogger("vllm.falcon")
_ALGORITHM = "W4A16_NVFP4"
# From here on the model itself is told how it is quantized.
_MODEL_MENDED = (0, 16)


def register() -> None:
    """Take over how NVFP4 layers are loaded and multiplied, and with older versions the model itself."""
    if FalconWeightOnlyMethod.__name__ in linear.WEIGHT_LOADER_V2_SUPPORTED:
        return
    linear.WEIGHT_LOADER_V2_SUPPORTED.append(FalconWeightOnlyMethod.__name__)
    if _ALGORITHM in modelopt.QUANT_ALGOS:
        modelopt.ModelOptNvFp4W4A16LinearMethod = FalconWeightOnlyMethod
    else:
        modelopt.QUANT_ALGOS.append(_ALGORITHM)
        modelopt.ModelOptNvFp4Config.LinearMethodCls = FalconWeightOnlyMethod
    parts = "its NVFP4 layers"
    if _version() < _MODEL_MENDED:
        ModelRegistry.register_model("FalconH1ForCausalLM", "falcon_vllm.falcon_h1_model:FalconH1ForCausalLM")
        parts += ", its MLP's quantization and its scales of the KV cache"
    _log.info("falcon: Falcon-H1 is loaded with this project's code for %s", parts)


def _version() -> tuple[int, int]:
    major, minor, *_ = importlib.metadata.version("vllm").split(".")
    return int(major), int(minor)
