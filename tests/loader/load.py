"""Loads checkpoints with an older vLLM on CPU, without the engine: these versions have no Mamba kernels for CPU.

usage: load.py CHECKPOINT [REFERENCE]

With a reference, a BF16 checkpoint of the same numbers, each linear layer of both gets the same input. Prints one
line of JSON: the layers' names, which of them differ, the KV cache's scales; or the error that loading ended with.
"""

# mypy: disable-error-code="import-not-found"
# (vLLM and torch are in an environment of their own)

import json
import sys
import tempfile
import traceback
from importlib.metadata import version
from typing import Any

import torch


def load(checkpoint: str) -> Any:
    """The model, built and filled by vLLM's own loader."""
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model

    spare_convolutions()
    # The first of these versions has no other cache on CPU, the later ones would take the checkpoint's FP8.
    cache = "auto" if version("vllm").startswith("0.13.") else "bfloat16"
    arguments = EngineArgs(
        model=checkpoint, max_model_len=256, enforce_eager=True, enable_prefix_caching=False, kv_cache_dtype=cache
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config):
        join_group()
        return get_model(vllm_config=config)


def spare_convolutions() -> None:
    """Mamba's convolution is no matrix, which these versions' code for CPU takes it for."""
    from vllm.model_executor.layers import linear, utils

    original = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, *args: Any, **kwargs: Any) -> None:
        if layer.weight.ndim == 2:
            original(layer, *args, **kwargs)

    for module in (linear, utils):
        setattr(module, original.__name__, dispatch)


def watch_cache_scales() -> dict[str, list[float]]:
    """What the layers' scales of the KV cache are when all is loaded; a cache that is not FP8 drops them then."""
    from vllm.model_executor.layers.quantization.kv_cache import BaseKVCacheMethod

    seen: dict[str, list[float]] = {}
    original = BaseKVCacheMethod.process_weights_after_loading

    def process(self: Any, layer: Any) -> None:
        seen[layer.layer_name] = [round(float(scale), 6) for scale in (layer.k_scale, layer.v_scale)]
        original(self, layer)

    BaseKVCacheMethod.process_weights_after_loading = process
    return seen


def join_group() -> None:
    """Models ask for their place among processes: the only one."""
    from vllm.distributed import init_distributed_environment, initialize_model_parallel, model_parallel_is_initialized

    if not model_parallel_is_initialized():
        with tempfile.NamedTemporaryFile(delete=False) as file:
            init_distributed_environment(1, 0, f"file://{file.name}", 0, "gloo")
        initialize_model_parallel(1, 1)


def linears(model: Any) -> dict[str, Any]:
    """The linear layers by name, without Mamba's convolution, which is one only by class."""
    from vllm.model_executor.layers.linear import LinearBase

    return {n: m for n, m in model.named_modules() if isinstance(m, LinearBase) and not n.endswith("conv1d")}


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The layers that do not multiply alike, to the bit."""
    assert found.keys() == expected.keys(), f"{found.keys()} are not {expected.keys()}"
    generator = torch.Generator().manual_seed(0)
    names = []
    for name, layer in found.items():
        x = torch.randn(7, layer.input_size, generator=generator).bfloat16()
        outputs = [m.quant_method.apply(m, x) for m in (layer, expected[name])]
        if not torch.equal(*outputs):
            names.append(name)
    return names


def main() -> None:
    """Load, compare, print."""
    scales = watch_cache_scales()
    try:
        model = load(sys.argv[1])
    except Exception as error:
        traceback.print_exc()
        print("RESULT", json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return
    layers = linears(model)
    name = f"{type(model).__module__}.{type(model).__name__}"
    result: dict[str, Any] = {"class": name, "layers": sorted(layers), "cacheScales": scales}
    if len(sys.argv) > 2:
        result["differing"] = differing(layers, linears(load(sys.argv[2])))
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
