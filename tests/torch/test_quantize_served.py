"""Stock vLLM serves what falcon-quantize made, and answers as with the same numbers in BF16."""

# mypy: disable-error-code="import-not-found, import-untyped"

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelopt.torch.quantization.qtensor import NVFP4QTensor
from safetensors.torch import load_file, save_file
from tests.torch.quantizing import run
from tests.torch.test_vllm_nvfp4_on_cpu import PROMPTS, assert_alike, generate

from falcon_engine import archive, plugins

MAKER = Path(__file__).parents[2] / "testbed/images/tiny-model/tiny_model.py"


def in_bf16(quantized: Path, out: Path) -> Path:
    """The same numbers without NVFP4, by ModelOpt's own way back."""
    shutil.copytree(quantized, out, ignore=shutil.ignore_patterns("*quant*", "*.index.json"))
    config = json.loads((out / "config.json").read_text())
    del config["quantization_config"]
    (out / "config.json").write_text(json.dumps(config))
    for file in out.glob("*.safetensors"):
        tensors = load_file(file)
        for name in [name for name in tensors if f"{name}_scale_2" in tensors]:
            scale, scale_2 = tensors.pop(f"{name}_scale"), tensors.pop(f"{name}_scale_2")
            packed = tensors[name]
            tensors[name] = NVFP4QTensor(
                (packed.shape[0], 2 * packed.shape[1]), tensors["model.embed_tokens.weight"].dtype, packed
            ).dequantize(scale=scale, double_scale=scale_2, block_sizes={-1: 16})
        save_file({k: v for k, v in tensors.items() if not k.endswith(("k_scale", "v_scale"))}, file)
    return out


def test_vllm_answers_as_with_the_same_numbers_in_bf16(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(MAKER), str(tmp_path / "source")], check=True, capture_output=True)
    assert run(tmp_path / "source", tmp_path / "quantized", "--kv-scales", "calibrated") == 0
    launcher = tmp_path / archive.FILE_NAME
    launcher.write_bytes(archive.build())
    environ = plugins.variables((plugins.NVFP4_ON_CPU,), os.environ, str(launcher))
    found, expected, _ = generate(tmp_path / "quantized", in_bf16(tmp_path / "quantized", tmp_path / "twin"), environ)
    assert_alike(found, expected)
    assert len({tuple(tokens) for tokens, _ in found}) == len(PROMPTS)
