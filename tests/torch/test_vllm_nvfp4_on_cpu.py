"""NVFP4 on CPU: the numbers of a weight, a layer's output, and a whole model in stock vLLM beside its BF16 twin."""

# mypy: disable-error-code="import-not-found"
# (torch and vLLM are only in the image of these tests)

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.torch import tiny_nvfp4

from falcon_engine import archive, plugins
from falcon_vllm.nvfp4 import dequantize

ROOT = Path(__file__).parents[2]
PROMPTS = ("The quick brown fox", "a b c d e f g h i j k l m n o p q r s t u v w x y z", "What is the capital?")
# Runs in a process of its own: the first engine starts processes as a server does, and each finds the plugin in the
# archive by its entry point; the second, which needs none, saves their start.
GENERATE = """
import json, os, sys
from vllm import LLM, SamplingParams

def answers(model, **arguments):
    llm = LLM(model, max_model_len=256, max_num_seqs=4, enforce_eager=True, enable_prefix_caching=False,
              kv_cache_memory_bytes=1 << 26, **arguments)
    wanted = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=3)
    given = [answer.outputs[0] for answer in llm.generate(json.loads(sys.argv[3]), wanted)]
    likely = [[{token: told.logprob for token, told in place.items()} for place in a.logprobs] for a in given]
    return [[list(a.token_ids), places] for a, places in zip(given, likely)]

if __name__ == "__main__":
    quantized = answers(sys.argv[1], kv_cache_dtype="bfloat16")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    plain = answers(sys.argv[2], distributed_executor_backend="uni")
    print("ANSWERS", json.dumps([quantized, plain]))
"""


# Nats between two tokens that rounding may exchange: logits are BF16 products, and a processor with AMX adds up
# otherwise.
TIE = 0.05


def packed(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    weight = tiny_nvfp4.random_weight(rows, columns, seed)
    scale = float(torch.tensor(float(weight.abs().max()) / (6 * 448)))
    return (*tiny_nvfp4.pack(weight, scale), scale)


def test_every_code_with_every_scale_is_the_number_that_its_bits_say() -> None:
    """All 16 values times all 254 finite scales, and the scale of the tensor on top."""
    finite = [code for code in range(256) if code & 127 != 127]
    codes = torch.arange(16, dtype=torch.uint8)
    row = codes[0::2] | codes[1::2] << 4
    weight = row.repeat(len(finite), 1)
    scales = torch.tensor(finite, dtype=torch.uint8).reshape(-1, 1).view(torch.float8_e4m3fn)
    scale = float(torch.tensor(0.0123456789))
    expected = tiny_nvfp4.unpack(weight, scales, scale)
    assert torch.equal(dequantize(weight, scales, torch.tensor(scale), torch.float32), expected)
    assert torch.equal(dequantize(weight, scales, torch.tensor(scale), torch.bfloat16), expected.bfloat16())


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (3, 32), (40, 128), (7, 80)])
def test_a_weight_is_what_its_bytes_say(rows: int, columns: int) -> None:
    weight, scales, scale = packed(rows, columns, seed=rows)
    found = dequantize(weight, scales, torch.tensor(scale), torch.bfloat16)
    assert torch.equal(found, tiny_nvfp4.unpack(weight, scales, scale).bfloat16())


def test_rows_may_have_scales_of_their_own() -> None:
    weight, scales, _ = packed(4, 32, seed=1)
    found = dequantize(weight, scales, torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.float32)
    for row, scale in enumerate((1.0, 2.0, 4.0, 8.0)):
        assert torch.equal(found[row : row + 1], tiny_nvfp4.unpack(weight[row : row + 1], scales[row : row + 1], scale))


@pytest.mark.parametrize(
    ("weight", "scales"),
    [
        (torch.zeros(2, 12, dtype=torch.uint8), torch.ones(2, 1)),
        (torch.zeros(2, 8, dtype=torch.uint8), torch.ones(2, 2)),
        (torch.zeros(2, 8, dtype=torch.uint8), torch.ones(1, 1)),
        (torch.zeros(2, 8), torch.ones(2, 1)),
    ],
)
def test_what_is_no_nvfp4_weight_is_refused(weight: torch.Tensor, scales: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="is no NVFP4 weight"):
        dequantize(weight, scales, torch.tensor(1.0), torch.bfloat16)


def test_a_layer_multiplies_by_the_numbers_of_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.quantization import modelopt

    from falcon_vllm import cpu

    monkeypatch.setattr(modelopt, "init_nvfp4_linear_kernel", modelopt.init_nvfp4_linear_kernel)
    cpu.register()
    weight, scales, scale = packed(48, 64, seed=3)
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.weight_scale = torch.nn.Parameter(scales, requires_grad=False)
    layer.weight_global_scale = torch.nn.Parameter(torch.tensor(scale), requires_grad=False)
    bias = torch.arange(48).bfloat16()
    layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)  # vLLM's own, which it may keep in FP32
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.bfloat16)
    with set_current_vllm_config(VllmConfig()):
        kernel = modelopt.init_nvfp4_linear_kernel(use_a16=True)
        kernel.process_weights_after_loading(layer)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = x.double() @ tiny_nvfp4.unpack(weight, scales, scale).bfloat16().double().T + bias.double()
    assert torch.allclose(kernel.apply_weights(layer, x, layer.bias).double(), exact, rtol=2**-7, atol=2**-7)


def generate(quantized: Path, plain: Path, environ: dict[str, str]) -> tuple[Any, Any, str]:
    """The greedy answers of both checkpoints, tokens and at each place the likeliest; and what the engines said."""
    offline = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_HOST_IP": "127.0.0.1"}
    offline["TORCHDYNAMO_DISABLE"] = "1"  # vLLM would compile how it ranks log probabilities, and the image has no g++
    command = [sys.executable, "-c", GENERATE, str(quantized), str(plain), json.dumps(PROMPTS)]
    variables = {**os.environ, **offline, **environ}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=300)
    said = done.stdout + done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert answers, said[-6000:]
    return (*json.loads(answers[0].removeprefix("ANSWERS ")), said)


def assert_alike(found: Any, expected: Any) -> None:
    """The same tokens, up to a place where another one was as likely."""
    for (tokens, _), (wanted, likely) in zip(found, expected, strict=True):
        first = next((place for place, pair in enumerate(zip(tokens, wanted, strict=True)) if pair[0] != pair[1]), None)
        if first is None:
            continue
        told = likely[first]
        gap = told[str(wanted[first])] - told.get(str(tokens[first]), float("-inf"))
        assert gap <= TIE, f"{tokens} instead of {wanted}: at {first} one was likelier by {gap}"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny model in NVFP4, and in BF16 with the same numbers."""
    folder = tmp_path_factory.mktemp("tiny")
    maker = ROOT / "testbed/images/tiny-model/tiny_model.py"
    subprocess.run([sys.executable, str(maker), str(folder / "model")], check=True, capture_output=True)
    return tiny_nvfp4.write(folder / "model", folder)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that the launcher gives an engine on CPU, with an archive as the operator ships it."""
    file = tmp_path_factory.mktemp("launcher") / archive.FILE_NAME
    file.write_bytes(archive.build())
    return plugins.variables((plugins.NVFP4_ON_CPU,), os.environ, str(file))


def test_stock_vllm_answers_in_nvfp4_as_in_bf16_with_the_same_numbers(
    checkpoints: tuple[Path, Path], plugin: dict[str, str]
) -> None:
    found, expected, said = generate(*checkpoints, plugin)
    assert_alike(found, expected)
    assert len({tuple(tokens) for tokens, _ in found}) == len(PROMPTS), "the prompts make a difference"
    assert "NVFP4 weights become BF16 on this CPU" in said
