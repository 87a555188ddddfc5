"""The launcher's report and the engine's metric: what is read of them, and that nothing odd raises."""

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_engine import enginelog, gpus, serving
from falcon_engine import report as launcher
from falcon_operator.api import names
from falcon_operator.decide.report import PHASES, CacheFigures, Canary, Clamped, Computed, Gpu, Report, Retry
from falcon_operator.observe import exposition, report

REPORT: dict[str, Any] = {
    "schema": 1,
    "engine": {
        "version": "0.26.0",
        "profile": "0.26",
        "nvfp4Kernel": "Marlin",
        "attentionBackend": "FLASH_ATTN",
        "quantization": "modelopt_fp4",
        "maxNumSeqs": 99,
    },
    "checkpoint": {"path": "/models/nvfp4", "nvfp4": True},
    "gpus": [{"name": "NVIDIA H200", "memoryMiB": 143771, "computeCapability": "9.0", "driver": "580.159.04"}],
    "computeFormat": {"format": "BF16", "why": "It is faster.", "seconds": 21.5},
    "clamped": {"asked": 256, "given": 99, "why": "The GPU holds 99 sequences."},
    "capacity": {
        "blocks": 1660,
        "blockTokens": 3328,
        "tokens": 2719744,
        "maxConcurrency": 41.5,
        "kvAvailableGiB": 115.91,
        "weightsGiB": 5.19,
    },
    "phase": "loaded",
    "phases": {"prepared": 0.4, "imported": 21.0, "loaded": 25},
    "canary": {"state": "failed", "seconds": None, "error": "HTTP 500:\nno"},
    "retries": [{"reason": "GPUMemoryTaken", "message": "not yet free", "at": 12.3}],
}


def body(**changes: Any) -> bytes:
    return json.dumps({**REPORT, **changes}).encode()


def test_a_report_is_read() -> None:
    assert report.parse(body()) == Report(
        version="0.26.0",
        kernel="Marlin",
        attention_backend="FLASH_ATTN",
        quantization="modelopt_fp4",
        max_num_seqs=99,
        gpus=(Gpu("NVIDIA H200", 143771, "9.0", "580.159.04"),),
        clamped=Clamped(256, 99, "The GPU holds 99 sequences."),
        computed=Computed("BF16", "It is faster.", 21.5),
        cache=CacheFigures(1660, 3328, 2719744, 41.5),
        phase="loaded",
        phases={"prepared": 0.4, "imported": 21.0, "loaded": 25.0},
        canary=Canary("failed", "HTTP 500: no"),
        retries=(Retry("GPUMemoryTaken", "not yet free", 12.3),),
    )


# Lines of vLLM 0.26.0 on an H200, without what is around them.
LOG = b"""
[core.py:116] Initializing a V1 LLM engine (v0.26.0) with config: model='/m', quantization=modelopt,
[cuda.py:482] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN', 'FLASHINFER', 'TRITON_ATTN'].
[marlin.py:34] Weight-only FP4 compression will be used leveraging the Marlin kernel. This may degrade performance
[gpu_model_runner.py:5347] Model loading took 5.19 GiB memory and 3.477852 seconds
[interface.py:905] Setting attention block size to 3328 tokens to ensure that attention page size is >= mamba page size.
[kv_cache_utils.py:2177] GPU KV cache size: 2,719,744 tokens
[kv_cache_utils.py:2178] Maximum concurrency for 65,536 tokens per request: 41.50x
"""


def test_what_the_launcher_writes_is_what_is_read() -> None:
    times = iter([0.0, 7.25, 12.0])
    written = launcher.Report(lambda: next(times))
    gpu = gpus.Gpu("NVIDIA H200", 143771, "9.0", "580.159.04")
    written.put(
        version="0.26.0", profile="0.26", max_num_seqs=99, gpus=(gpu,), checkpoint={"path": "/m", "nvfp4": True}
    )
    written.put(compute_format={"format": "NVFP4", "why": "It is native.", "seconds": None})
    written.put(clamped=launcher.Clamped(256, 99, "The GPU holds 99."))
    written.retry("GPUMemoryTaken", "not yet free")
    written.begin(canary=True).feed(LOG, 30.0)
    written.canary = launcher.Canary("passed", 0.4)
    assert report.parse(written.to_json().encode()) == Report(
        version="0.26.0",
        kernel="MarlinNvFp4LinearKernel",
        attention_backend="FLASH_ATTN",
        quantization="modelopt",
        max_num_seqs=99,
        gpus=(Gpu("NVIDIA H200", 143771, "9.0", "580.159.04"),),
        clamped=Clamped(256, 99, "The GPU holds 99."),
        computed=Computed("NVFP4", "It is native."),
        cache=CacheFigures(None, 3328, 2719744, 41.5),
        phase="compiled",
        phases={"imported": 30.0, "loaded": 30.0, "compiled": 30.0},
        canary=Canary("passed"),
        retries=(Retry("GPUMemoryTaken", "not yet free", 7.2),),
    )


def test_both_sides_name_the_same_steps_and_port() -> None:
    assert enginelog.PHASES == PHASES
    assert serving.PORT == names.LAUNCHER_PORT
    assert report.SCHEMA == launcher.SCHEMA


def test_a_report_of_a_start_that_has_just_begun_is_read() -> None:
    assert report.parse(b'{"schema": 1, "phases": {}, "canary": {"state": "off"}}') == Report(canary=Canary("off"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>404</html>",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"schema": 2}',
        b'{"schema": true}',
        b'{"schema": "1"}',
        b"[" * 60_000,
        b"\xff\xfe",
        b'{"schema": ' + b"1" * 5000 + b"}",
        body(padding="x" * 70_000),
    ],
)
def test_what_is_no_report_is_none(text: bytes) -> None:
    assert report.parse(text) is None


ODD: list[Any] = [
    None,
    True,
    -1,
    1.5,
    1e300,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x" * 100_000,
    "a\x00b",
    [],
    {},
    [[]],
    [{}],
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner),
    max_leaves=4,
)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_an_odd_value_is_none_and_leaves_the_others_alone(odd: Any) -> None:
    whole = report.parse(body())
    assert whole is not None
    for section in ("engine", "gpus", "clamped", "capacity", "phase", "phases", "canary", "retries", "checkpoint"):
        found = report.parse(body(**{section: odd})[: report.BODY_BYTES + 1])
        if found is not None:  # else it was too long
            assert found.version == (None if section == "engine" else whole.version)
            assert found.gpus == (() if section == "gpus" else whole.gpus)
    for section in ("engine", "clamped", "capacity", "phases", "canary"):
        for key in REPORT[section]:
            changed = copy.deepcopy(REPORT)
            changed[section][key] = odd
            found = report.parse(json.dumps(changed).encode())
            if found is not None:
                assert found.gpus == whole.gpus


@given(st.fixed_dictionaries({"schema": st.just(1)}, optional={key: ANY for key in REPORT if key != "schema"}))
def test_any_json_is_taken_without_an_error(raw: dict[str, Any]) -> None:
    assert isinstance(report.parse(json.dumps(raw).encode()), Report)


def test_what_an_engine_is_doing_is_said_in_words() -> None:
    doing = {}
    for phase in (None, "prepared", "imported", "loaded", "compiled", "captured", "ready"):
        found = report.parse(body(phase=phase, canary={"state": "pending"}, retries=[]))
        assert found is not None
        doing[phase] = found.doing
    assert doing["imported"] == "loading the weights"
    assert len(set(doing.values())) == 7
    failed = report.parse(body())
    assert failed is not None
    assert failed.doing == "asking its engine for a first token again, which failed: HTTP 500: no"
    retried = report.parse(body(retries=[{"reason": "GPUMemoryTaken", "message": "not yet free.", "at": 40}]))
    assert retried is not None
    assert retried.doing == "starting its engine again after GPUMemoryTaken (not yet free)"
    assert retried.since == 40


GPU_SAMPLE = (
    b'vllm:cache_config_info{_block_size_resolved="True",block_size="3328",cache_dtype="fp8",engine="0",'
    b'kv_cache_dtype_skip_layers="[]",kv_cache_max_concurrency="41.5",kv_cache_size_tokens="2719744",'
    b'mamba_block_size="16",mamba_cache_mode="all",num_cpu_blocks="None",num_gpu_blocks="1660"} 1.0\n'
)
HEAD = (
    b"# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n# TYPE vllm:cache_config_info gauge\n"
    b'vllm:cache_config_info_created{block_size="1",num_gpu_blocks="1"} 1.7e9\n'
    b'xvllm:cache_config_info{block_size="2",num_gpu_blocks="2"} 1.0\n'
)


def test_the_cache_is_read_by_its_exact_name() -> None:
    assert exposition.cache_figures(HEAD + GPU_SAMPLE) == CacheFigures(1660, 3328, 2719744, 41.5)
    assert exposition.cache_figures(HEAD) is None
    assert exposition.cache_figures(GPU_SAMPLE, names=()) is None
    assert exposition.cache_figures(GPU_SAMPLE, names=("vllm:cache_config",)) is None
    renamed = GPU_SAMPLE.replace(b"vllm:cache", b"vllm.cache")
    assert exposition.cache_figures(renamed, ("vllm:other", "vllm.cache_config_info")) is not None
    assert exposition.cache_figures(GPU_SAMPLE, ("vllm.cache_config_info",)) is None, "a dot is no wildcard"


def test_the_size_of_attentions_own_blocks_goes_first() -> None:
    sample = b'vllm:cache_config_info{block_size="128",effective_attention_block_size="6272"} 1.0\n'
    assert exposition.cache_figures(sample) == CacheFigures(block_tokens=6272)
    sample = b'vllm:cache_config_info{block_size="128",effective_attention_block_size="None"} 1.0\n'
    assert exposition.cache_figures(sample) == CacheFigures(block_tokens=128)


def test_quotes_and_braces_in_other_labels_do_no_harm() -> None:
    sample = rb'vllm:cache_config_info{odd="a\"}\\,b=\"{",num_gpu_blocks="7",} 1.0'
    assert exposition.cache_figures(sample) == CacheFigures(blocks=7)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html><body>vllm:cache_config_info</body></html>",
        b"vllm:cache_config_info 1.0\n",
        b'vllm:cache_config_info{num_gpu_blocks="NaN",block_size="-1",kv_cache_max_concurrency="nan"} 1.0\n',
        b'vllm:cache_config_info{num_gpu_blocks="9999999999999999999999"} 1.0\n',
        b'vllm:cache_config_info{num_gpu_blocks="12} 1.0\n',
        b"vllm:cache_config_info{num_gpu_blocks=12} 1.0\n",
        b'vllm:cache_config_info{kv_cache_max_concurrency="1e400"} 1.0\n',
        b'vllm:cache_config_info{num_gpu_blocks="\xd9\xa1"} 1.0\n',
        GPU_SAMPLE.rpartition(b"}")[0],
        b"\xff" * 1000,
    ],
)
def test_an_exposition_without_figures_is_none(text: bytes) -> None:
    assert exposition.cache_figures(text) is None


@pytest.mark.parametrize("unit", [b"\n", b"vllm:cache_config_info{", b'vllm:cache_config_info{a="' * 2, b"x"])
def test_the_longest_answer_that_is_read_is_read_quickly(unit: bytes) -> None:
    text = unit * (exposition.BODY_BYTES // len(unit))
    begin = time.process_time()
    assert exposition.cache_figures(text) is None
    assert time.process_time() - begin < 5
    assert exposition.cache_figures(GPU_SAMPLE + b"x" * exposition.BODY_BYTES) is None, "a longer one is not"
