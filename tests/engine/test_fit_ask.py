"""What is asked of an engine: the intent, and the extra arguments that change it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.engine.launching import intent

from falcon_engine import ask as asks
from falcon_engine import flags, profiles

PROFILE = profiles.select("0.33.0")[0]


def asked(*extra: str, profile: profiles.Profile = PROFILE, **changes: Any) -> asks.Ask:
    base = {"device": "cuda", "max_model_len": 65536, "max_num_seqs": 256, "kv_cache_dtype": "fp8"}
    wanted = replace(intent(), **{**base, "extra_args": extra, **changes})
    return asks.from_intent(wanted, profile, "nvfp4")


def test_without_extra_arguments_the_intent_is_asked() -> None:
    found = asked(prefix_caching=True, tensor_parallel_size=2, gpu_memory_utilization=0.5, cuda_graph_mode="PIECEWISE")
    assert found == asks.Ask(65536, 256, 0.5, "fp8", True, "nvfp4", tensor_parallel_size=2, cuda_graph_mode="PIECEWISE")


def test_without_extra_arguments_all_versions_are_asked_alike_on_a_gpu_but_for_the_cache_mode() -> None:
    found = {version: asked(prefix_caching=True, profile=profiles.load(version)) for version in profiles.VERSIONS}
    assert {version: ask.mamba_cache_mode for version, ask in found.items() if ask.mamba_cache_mode} == {
        "0.26": "align"
    }
    assert len({replace(ask, mamba_cache_mode=None) for ask in found.values()}) == 1


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        (("--kv-cache-memory-bytes", "1073741824"), "kv_cache_memory_bytes", 1 << 30),
        (("--kv-cache-memory-bytes=2G",), "kv_cache_memory_bytes", 2 << 30),
        (("--kv_cache_memory_bytes=2g",), "kv_cache_memory_bytes", 2 * 10**9),
        (("--max-num-seqs", "64"), "max_num_seqs", 64),
        (("--max-num-seqs=64", "--max-num-seqs=32"), "max_num_seqs", 32),
        (("--max-model-len", "32k"), "max_model_len", 32_000),
        (("--max-model-len", "25.6k"), "max_model_len", 25_600),
        (("--max-num-batched-tokens", "4096"), "max_num_batched_tokens", 4096),
        (("-tp", "2"), "tensor_parallel_size", 2),
        (("--mamba-ssm-cache-dtype", "float32"), "ssm_dtype", "float32"),
        (("--mamba-cache-dtype=float32",), "mamba_dtype", "float32"),
        (("--mamba-block-size", "1024"), "mamba_block_size", 1024),
        (("--block-size", "64"), "block_size", 64),
        (("--kv-cache-dtype", "auto"), "kv_cache_dtype", "auto"),
        (("--num-gpu-blocks-override", "100"), "blocks_override", 100),
        (("--gpu-memory-utilization", "0.5"), "gpu_memory_utilization", 0.5),
        (("--no-enable-prefix-caching",), "prefix_caching", False),
        (("--no-enable-prefix-caching", "--enable-prefix-caching"), "prefix_caching", True),
        (("--enforce-eager",), "cuda_graph_mode", "NONE"),
        (("--compilation-config", '{"cudagraph_mode": "piecewise"}'), "cuda_graph_mode", "PIECEWISE"),
        (("-cc.cudagraph_mode=FULL",), "cuda_graph_mode", "FULL"),
        (("--hf-overrides", "{}"), "positions_overridden", True),
    ],
)
def test_an_extra_argument_wins(extra: tuple[str, ...], field: str, value: Any) -> None:
    assert asked(*extra, prefix_caching=True) == replace(asked(prefix_caching=True), **{field: value})


@pytest.mark.parametrize(
    "extra",
    [
        ("--max-num-seqs", "many"),
        ("--max-num-seqs",),
        ("--max-num-seqs=-4",),
        ("--max-num-seqs=1.5",),
        ("--kv-cache-memory-bytes=9e9",),
        ("--gpu-memory-utilization", "most"),
        ("--compilation-config", "{"),
        ("--compilation-config", "[]"),
        ("--compilation-config", '{"cudagraph_mode": 3}'),
        ("-cc.mode=3",),
        ("--no-such-flag", "3"),
        ("3",),
    ],
)
def test_what_cannot_be_read_is_left_to_the_engine(extra: tuple[str, ...]) -> None:
    assert asked(*extra) == asked()


def test_on_cpu_it_asks_what_the_rendered_flags_say() -> None:
    found = asked(device="cpu", prefix_caching=True, profile=profiles.select("0.32.0")[0])
    assert found.kv_cache_memory_bytes == flags.CPU_CACHE_BYTES
    assert (found.kv_cache_dtype, found.prefix_caching, found.cuda_graph_mode) == ("bfloat16", False, "NONE")
    assert found.ssm_dtype == "float32"


def test_a_cpu_without_bf16_instructions_keeps_states_as_asked() -> None:
    wanted = replace(intent(), device="cpu")
    found = asks.from_intent(wanted, PROFILE, "bf16", float32_state=False)
    assert (found.ssm_dtype, found.kv_cache_dtype) == ("auto", "auto")
