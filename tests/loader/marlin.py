"""On a GPU: layers of Falcon-H1R's shapes through the plugin's Marlin path, beside BF16.

usage: PYTHONPATH=operator python -m tests.loader.marlin

For vLLM up to 0.26, whose interface the plugin has. Prints a line a shape; ends with 1 where one is not as it must be.
"""

# mypy: disable-error-code="import-not-found"
# (torch and vLLM are where a GPU is)

import sys
import tempfile
from types import SimpleNamespace

import torch

SHAPES = {
    "qkv_proj": (2048, 3072),
    "o_proj": (3072, 1536),
    "in_proj": (6680, 3072),
    "out_proj": (3072, 3072),
    "gate_up_proj": (24576, 3072),
    "down_proj": (3072, 12288),
}
# BF16 sums of 3072 to 12288 products, in another order; the weight's own scale is rounded to BF16 by old versions.
TOLERANCE = 0.02


def main() -> int:
    """Multiply 1, 7 and 300 rows by each; returns how many shapes failed."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.model_executor.layers.linear import ColumnParallelLinear
    from vllm.model_executor.layers.quantization import modelopt

    from falcon_vllm import falcon_h1, weight_only
    from falcon_vllm.nvfp4 import dequantize

    falcon_h1.register()
    # 0.26, which the plugin itself is not for, asks a kernel that this method does not have how it wants its input.
    weight_only.FalconWeightOnlyMethod.kernel = SimpleNamespace(input_quant_key=lambda: None)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("cuda")
    failed = 0
    with set_current_vllm_config(VllmConfig()), tempfile.NamedTemporaryFile() as file:
        init_distributed_environment(1, 0, f"file://{file.name}", 0, "nccl")
        initialize_model_parallel(1, 1)
        given = {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4", "ignore": []}
        config = modelopt.ModelOptNvFp4Config.from_config(given)
        for name, (rows, columns) in SHAPES.items():
            layer = ColumnParallelLinear(columns, rows, bias=False, quant_config=config, prefix=name)
            packed = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
            scales = (torch.rand(rows, columns // 16) * 400 + 20).to(torch.float8_e4m3fn)
            scale = torch.tensor(2.0**-14, dtype=torch.float32)
            layer.weight.data.copy_(packed)
            layer.weight_scale.data.copy_(scales)
            layer.weight_scale_2.data.fill_(scale)
            layer.quant_method.process_weights_after_loading(layer)
            weight = dequantize(packed, scales, scale, torch.bfloat16)
            worst = 0.0
            for tokens in (1, 7, 300):
                x = torch.randn(tokens, columns)
                expected = x.float() @ weight.float().T
                found = layer.quant_method.apply(layer, x).float()
                assert found.shape == expected.shape
                worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
            failed += not worst <= TOLERANCE
            print(f"{name} {rows} x {columns}: {type(layer.quant_method).__name__}, largest error {worst:.5f}")
    print(f"{len(SHAPES) - failed} passed, {failed} failed on {torch.cuda.get_device_name()}")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
