"""From last words to a reason: each signature on lines as vLLM prints them."""

import pytest

from falcon_engine.diagnose import SIGNATURES, diagnose

PREFIX = "(EngineCore pid=71) ERROR 11-24 13:00:00 [core.py:1100] "

# reason, exit code, what message and hint hold, the lines
CASES = [
    (
        "FlagUnknown",
        2,
        "--foo 3",
        "usage: vllm serve [options]\nvllm serve: error: unrecognized arguments: --foo 3",
    ),
    (
        "FlagValueRefused",
        2,
        "'fp3' for --dtype; it takes 'auto', 'half'",
        "vllm serve: error: argument --dtype: invalid choice: 'fp3' (choose from 'auto', 'half')",
    ),
    (
        "FlagValueRefused",
        2,
        "--max-model-len: Value x cannot be converted",
        "vllm serve: error: argument --max-model-len: Value x cannot be converted to <function f>.",
    ),
    (
        "FlagValueRefused",
        2,
        "no parser nope",
        "KeyError: 'invalid tool call parser: nope (chose from {x})'",
    ),
    (
        "FlagValueRefused",
        2,
        "maxModelLen 65536 is more than the checkpoint allows (max_position_embeddings=2048",
        "ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified "
        "max_model_len (65536) is greater than the derived max_model_len (max_position_embeddings=2048.0 or "
        "model_max_length=None in model's config.json).",
    ),
    (
        "FlagValueRefused",
        2,
        "(CacheConfig gpu_memory_utilization): Input should be greater than 0",
        "(A pid=1) 1 validation error for CacheConfig\n(A pid=1) gpu_memory_utilization\n"
        "(A pid=1)   Input should be greater than 0 [type=x]",
    ),
    (
        "FlagValueRefused",
        2,
        "24 attention heads cannot be divided among 5 GPUs",
        "ValueError: Total number of attention heads (24) must be divisible by tensor parallel size (5).",
    ),
    (
        "FlagValueRefused",
        2,
        "KV cache type fp8",
        "ValueError: --kv-cache-dtype fp8 is not supported by the CPU attention backend on this host.",
    ),
    (
        "SequencesExceedMemory",
        2,
        "at most 99",
        PREFIX + "ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (99).",
    ),
    (
        "SequencesExceedMemory",
        2,
        "One sequence of 65536 tokens",
        "ValueError: To serve at least one request with the models's max seq len (65536), (2.75 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (1.0 GiB).",
    ),
    ("SequencesExceedMemory", 2, "no memory", "ValueError: No available memory for the cache blocks."),
    (
        "GPUMemoryTaken",
        1,
        "previous engine",
        "ValueError: Free memory on device cuda:0 (10/80 GiB) on startup is less than desired GPU memory.",
    ),
    (
        "QuantizationRefused",
        2,
        "quantization nvfp4, the engine was told modelopt_fp4",
        "Quantization method specified in the model config (nvfp4) does not match the quantization method specified in "
        "the `quantization` argument (modelopt_fp4).",
    ),
    ("QuantizationRefused", 2, "W4A16_NVFP4", "ValueError: Unknown ModelOpt quant algo: W4A16_NVFP4"),
    ("QuantizationRefused", 2, "nvfp4", "ValueError: Unknown quantization method: nvfp4. Must be one of"),
    ("QuantizationRefused", 2, "*in_proj*", "RuntimeError: NVFP4 weight_scale of layer x was never loaded (still NaN)"),
    ("DriverTooOld", 1, "580", "RuntimeError: The NVIDIA driver on your system is too old (found version 12040)."),
    ("DriverTooOld", 1, "built for this GPU", "CUDA error: no kernel image is available for execution on the device"),
    ("EngineStartFailed", 1, "sees no GPU", "RuntimeError: No CUDA GPUs are available"),
    ("OutOfMemory", 1, "gpuMemoryUtilization", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."),
    (
        "OutOfMemory",
        1,
        "--kv-cache-memory-bytes",
        "ValueError: Available memory is less than requested memory for kv (20 GiB).",
    ),
    ("OutOfMemory", 1, "spec.resources", "RuntimeError: DefaultCPUAllocator: can't allocate memory"),
    (
        "FlagValueRefused",
        2,
        "no parser nope",
        "KeyError: \"Reasoning parser 'nope' not found. Available parsers: qwen3\"",
    ),
    (
        "FlagValueRefused",
        2,
        "(VllmConfig ): Chunked prefill is required.",
        "1 validation error for VllmConfig\n  Value error, Chunked prefill is required. [type=value_error]",
    ),
    (
        "QuantizationRefused",
        2,
        "told modelopt_fp4, but",
        "1 validation error for VllmConfig\n  Value error, Cannot find the config file for modelopt_fp4 [type=x]",
    ),
    ("DiskFull", 1, "spec.cache", "OSError: [Errno 28] No space left on device: '/var/falcon/cache/x'"),
    ("CheckpointUnusable", 2, "weight file", "safetensors_rust.SafetensorError: Error while deserializing header"),
    (
        "CheckpointNotFound",
        1,
        "401 Client Error",
        "HfHubHTTPError: 401 Client Error. Unauthorized",
    ),
    ("CheckpointUnusable", 2, "FalconH2", "ValueError: Model architectures ['FalconH2'] are not supported for now."),
    ("EngineStartFailed", 1, "'/.cache'", "PermissionError: [Errno 13] Permission denied: '/.cache'"),
    ("StartInterrupted", 1, "spec.startup.budget", "KeyboardInterrupt: terminated"),
]


@pytest.mark.parametrize(("reason", "code", "words", "lines"), CASES)
def test_last_words(reason: str, code: int, words: str, lines: str) -> None:
    said = diagnose(1, ["INFO: before", *lines.splitlines(), "after"], served=False, engine_version="0.33.0")
    assert (said.reason, said.exit_code) == (reason, code)
    assert words in f"{said.message} {said.hint}"
    assert said.engine_version == "0.33.0"
    assert "{" not in said.message


def test_every_signature_has_a_case() -> None:
    seen = {diagnose(1, c[3].splitlines(), served=False, engine_version=None).hint for c in CASES}
    unfilled = [s for s in SIGNATURES if "{" not in s.hint and s.hint not in seen]
    assert [s.pattern for s in unfilled if s.reason != "QuantizationRefused"] == []


def test_the_cause_comes_before_its_consequence() -> None:
    lines = [
        PREFIX + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert diagnose(1, lines, served=False, engine_version=None).reason == "OutOfMemory"


def test_a_death_while_serving_keeps_its_reason_and_its_exit_code() -> None:
    said = diagnose(0, ["torch.OutOfMemoryError: CUDA out of memory."], served=True, engine_version=None)
    assert (said.reason, said.exit_code) == ("OutOfMemory", 70)
    assert "died while it served" in said.message


def test_the_last_error_is_quoted_where_nothing_is_known() -> None:
    lines = [PREFIX + "IndexError: index 2 is out of bounds", "RuntimeError: Engine core initialization failed. x"]
    said = diagnose(1, lines, served=False, engine_version=None)
    assert said.reason == "EngineStartFailed"
    assert said.message.endswith("Its last error: IndexError: index 2 is out of bounds.")


def test_the_kernels_count_beats_the_log() -> None:
    said = diagnose(0, ["EngineDeadError: x"], served=True, engine_version=None, memory_kills=1)
    assert (said.reason, said.exit_code) == ("OutOfMemory", 70)
    assert "container's memory limit" in said.message


def test_signals_have_names() -> None:
    assert diagnose(-9, [], served=False, engine_version=None).reason == "OutOfMemory"
    assert "SIGSEGV" in diagnose(-11, [], served=False, engine_version=None).message
    killed = diagnose(-9, [], served=True, engine_version=None)
    assert (killed.reason, killed.exit_code) == ("EngineDied", 70)
