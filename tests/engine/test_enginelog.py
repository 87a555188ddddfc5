"""What is read from the engine's own log: real logs, the words of every version, and logs of any size."""

import re
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_engine.enginelog import Capacity, EngineLog, Facts

STARTS = Path(__file__).parent / "logs" / "starts"
_STAMP = re.compile(rb" (\d\d-\d\d \d\d:\d\d:\d\d) \[")


def read(*lines: str) -> Facts:
    log = EngineLog()
    log.feed("\n".join(lines).encode(), 1.0)
    return log.facts


def replay(name: str) -> Facts:
    """A real log line by line, on the log's own clock."""
    log, begin, now = EngineLog(), None, 0.0
    for line in (STARTS / name).read_bytes().splitlines():
        if match := _STAMP.search(line):
            at = datetime.strptime(f"2026-{match[1].decode()}", "%Y-%m-%d %H:%M:%S").timestamp()
            begin = begin or at
            now = at - begin
        log.feed(line, now)
    return log.facts


def test_a_real_cold_start_with_nvfp4() -> None:
    assert replay("real-0.26-h200-nvfp4.log") == Facts(
        version="0.26.0",
        nvfp4_kernel="MarlinNvFp4LinearKernel",
        attention_backend="FLASH_ATTN",
        quantization="modelopt_fp4",
        capacity=Capacity(3328, 2719744, 41.5, 115.91, 5.19),
        phases={"imported": 34.0, "loaded": 41.0, "compiled": 277.0, "captured": 292.0, "ready": 294.0},
    )


def test_a_real_start_with_bf16_has_no_kernel_and_no_quantization() -> None:
    facts = replay("real-0.26-h200-bf16.log")
    assert (facts.nvfp4_kernel, facts.quantization) == (None, None)
    assert facts.capacity == Capacity(3328, 2505113, 38.23, 106.79, 14.26)
    assert facts.phase == "ready"


def test_a_real_start_without_prefix_caching() -> None:
    facts = replay("real-0.26-h200-nvfp4-no-prefix-caching.log")
    assert facts.capacity == Capacity(3120, 5043422, 76.96, 115.91, 5.19)


def test_a_real_start_on_cpu() -> None:
    facts = replay("real-0.32-cpu.log")
    assert (facts.version, facts.nvfp4_kernel, facts.attention_backend) == ("0.32.0", None, None)
    assert facts.capacity == Capacity(tokens=209715, max_concurrency=409.6, kv_available_gib=0.12)
    assert list(facts.phases) == ["imported", "loaded", "compiled", "captured", "ready"]


@pytest.mark.parametrize(
    ("line", "kernel"),
    [
        ("[modelopt.py:982] Using flashinfer-cutlass for NVFP4 GEMM", "flashinfer-cutlass"),  # 0.13
        ("[nvfp4_utils.py:85] Using NvFp4LinearBackend.MARLIN for NVFP4 GEMM", "NvFp4LinearBackend.MARLIN"),  # 0.18
        ("Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM", "FlashInferCutlassNvFp4LinearKernel"),  # 0.20 on
        ("Using HummingNvFp4LinearKernel for NVFP4 GEMM", "HummingNvFp4LinearKernel"),  # 0.32 on
        ("Using EmulationNvFp4LinearKernel for NVFP4 GEMM", "EmulationNvFp4LinearKernel"),
        ("Weight-only FP4 compression will be used leveraging the Marlin kernel. This", "MarlinNvFp4LinearKernel"),
        ("The Marlin kernel is for NVFP4", None),
    ],
)
def test_the_kernel_in_the_words_of_each_version(line: str, kernel: str | None) -> None:
    assert read(f"(EngineCore pid=9) INFO 11-24 10:48:10 {line}").nvfp4_kernel == kernel


def test_a_kernel_that_is_named_wins_over_the_warning() -> None:
    warning = "Weight-only FP4 compression will be used leveraging the Marlin kernel."
    named = "Using NvFp4LinearBackend.MARLIN for NVFP4 GEMM"
    assert read(named, warning).nvfp4_kernel == read(warning, named).nvfp4_kernel == "NvFp4LinearBackend.MARLIN"


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("Using FLASH_ATTN attention backend out of potential backends: ('FLASH_ATTN',)", "FLASH_ATTN"),
        ("Using AttentionBackendEnum.FLASHINFER backend.", "FLASHINFER"),  # where it was asked for
        ("Using triton Mamba SSU backend.", None),
        ("Using HND KV cache layout for FLASHINFER backend.", None),
    ],
)
def test_the_attention_backend(line: str, backend: str | None) -> None:
    assert read(line).attention_backend == backend


def test_the_cache_on_one_line_as_from_0_30_on() -> None:
    facts = read(
        "(EngineCore pid=7) INFO 11-24 12:00:00 [kv_cache_utils.py:1147] CPU KV cache size: 18,304 tokens, "
        "Maximum concurrency for 4,096 tokens per request: 4.47x"
    )
    assert facts.capacity == Capacity(tokens=18304, max_concurrency=4.47)
    assert facts.phase == "compiled"


def test_an_engine_without_graphs_has_warmed_up_all_the_same() -> None:
    assert read("init engine (profile, create kv cache, warmup model) took 3.90 seconds").phase == "captured"


def test_what_stands_after_the_start_is_not_read() -> None:
    log = EngineLog()
    log.feed(b"INFO:     Application startup complete.", 2.0)
    log.feed(b"Using Other for NVFP4 GEMM", 3.0)
    assert log.facts == Facts(phases={"ready": 2.0})


def test_a_model_is_loaded_when_the_last_worker_has_it() -> None:
    log = EngineLog()
    log.feed(b"Loading weights took 0.91 seconds", 3.0)
    for at in (4.0, 9.0):
        log.feed(b"Model loading took 2.6 GiB memory and 1.0 seconds", at)
    assert log.facts.phases == {"loaded": 9.0}


def test_any_other_step_counts_when_it_was_first_reached() -> None:
    log = EngineLog()
    for at in (4.0, 4.5):
        log.feed(b"Graph capturing finished in 3 secs, took 0.1 GiB", at)
    for at in (5.0, 9.0):
        log.ready(at)
    assert log.facts.phases == {"captured": 4.0, "ready": 5.0}


@given(
    st.lists(
        st.sampled_from([b"Model loading took ", b" for NVFP4 GEMM", b"Using ", b"\n", b"9" * 40, b"x"]) | st.binary()
    )
)
def test_nothing_in_a_log_raises(parts: list[bytes]) -> None:
    log = EngineLog()
    log.feed(b"".join(parts), 0.0)
    assert set(log.facts.phases) <= {"loaded"}


LINE = b"(EngineCore pid=9) WARNING 11-24 10:48:13 [kv_cache.py:134] Checkpoint does not provide a q scaling factor.\n"


@pytest.mark.parametrize(
    "chunk",
    [LINE * (65536 // len(LINE)), bytes(range(256)) * 256, b"x" * 65536, b"\r50%" * 16384],
    ids=["lines", "binary", "no-newline", "progress"],
)
def test_a_large_log_is_no_burden(chunk: bytes) -> None:
    log, megabytes = EngineLog(), 24
    begin = time.process_time()
    for _ in range((megabytes << 20) // len(chunk)):
        log.feed(chunk, 0.0)
    # Some 130 to 250 MB a second on two cores; a tenth of it is asked for, whatever else the machine does.
    assert time.process_time() - begin < megabytes / 12
    assert log.facts == Facts()


def test_a_log_that_repeats_one_marker_is_no_burden() -> None:
    log = EngineLog()
    begin = time.process_time()
    for _ in range(32):
        log.feed(b" attention backend" * 3640, 0.0)
    assert time.process_time() - begin < 1
