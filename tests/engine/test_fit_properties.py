"""What holds for any numbers: the fit never raises, never is negative, and never shrinks with more memory."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from falcon_engine import profiles
from falcon_engine.ask import Ask
from falcon_engine.fit import Fit, fit, kv_available_gib, least_gpu_gib, visible_gib
from falcon_engine.gpu_memory import FORMATS
from falcon_engine.shape import FALCON_H1R_7B

PROFILES = st.sampled_from([profiles.load(version) for version in profiles.VERSIONS])
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
ANY_INT = st.one_of(st.integers(-10, 100_000), st.integers())
POSSIBLE = st.builds(
    Ask,
    max_model_len=st.integers(1, 262_144),
    max_num_seqs=st.integers(1, 8192),
    gpu_memory_utilization=st.floats(0.1, 0.98),
    kv_cache_dtype=st.sampled_from(["fp8", "auto", "bfloat16", "nvfp4"]),
    prefix_caching=st.booleans(),
    weights=st.sampled_from(sorted(FORMATS)),
    tensor_parallel_size=st.sampled_from([1, 2, 4]),
    ssm_dtype=st.sampled_from(["auto", "float32", "float16"]),
    sharers=st.integers(1, 8),
    device=st.sampled_from(["cuda", "cpu"]),
    cuda_graph_mode=st.sampled_from(["NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"]),
    max_num_batched_tokens=st.integers(1, 65_536),
)
ANY = st.builds(
    Ask,
    max_model_len=ANY_INT,
    max_num_seqs=ANY_INT,
    gpu_memory_utilization=ANY_FLOAT,
    kv_cache_dtype=st.one_of(st.sampled_from(["fp8", "auto"]), st.text(max_size=8)),
    prefix_caching=st.booleans(),
    weights=st.one_of(st.sampled_from(["nvfp4", "bf16"]), st.text(max_size=8)),
    tensor_parallel_size=ANY_INT,
    ssm_dtype=st.one_of(st.just("auto"), st.text(max_size=8)),
    sharers=ANY_INT,
    device=st.sampled_from(["cuda", "cpu"]),
    max_num_batched_tokens=st.one_of(st.none(), ANY_INT),
    kv_cache_memory_bytes=st.one_of(st.none(), ANY_INT),
    block_size=st.one_of(st.none(), ANY_INT),
    mamba_block_size=st.one_of(st.none(), ANY_INT),
    mamba_cache_mode=st.one_of(st.none(), st.text(max_size=5)),
    blocks_override=st.one_of(st.none(), ANY_INT),
)


def check(found: Fit) -> None:
    assert found.verdict in ("Fits", "Clamped", "Refused")
    assert found.message.endswith(".")
    figures = (found.block_tokens, found.blocks, found.tokens, found.max_concurrency, found.max_num_seqs)
    assert all(figure >= 0 for figure in figures)
    assert all(length > 0 and number >= 0 for length, number in found.sequences)
    if found.verdict != "Refused":
        assert found.max_num_seqs > 0
        assert found.max_concurrency >= 1


@given(ask=ANY, profile=PROFILES, gpu=st.one_of(st.none(), ANY_FLOAT), cache=st.one_of(st.none(), ANY_FLOAT))
def test_no_number_makes_it_raise(ask: Ask, profile: profiles.Profile, gpu: float | None, cache: float | None) -> None:
    check(fit(FALCON_H1R_7B, profile, ask, gpu_gib=gpu, kv_available_gib=cache))
    kv_available_gib(FALCON_H1R_7B, profile, ask, gpu or 0.0)
    least_gpu_gib(FALCON_H1R_7B, profile, ask, clamp=True)
    assert visible_gib(gpu or 0.0) >= 0


@given(ask=POSSIBLE, profile=PROFILES, cache=st.floats(0.01, 300), more=st.floats(0, 100))
def test_more_memory_never_holds_less(ask: Ask, profile: profiles.Profile, cache: float, more: float) -> None:
    order = ("Refused", "Clamped", "Fits")
    for name in ("gpu_gib", "kv_available_gib"):
        if name == "gpu_gib" and ask.device == "cpu":
            continue
        memories: list[dict[str, Any]] = [{name: cache}, {name: cache + more}]
        small, large = (fit(FALCON_H1R_7B, profile, ask, **memory) for memory in memories)
        check(small)
        assert (small.blocks, small.tokens, small.max_concurrency) <= (
            large.blocks,
            large.tokens,
            large.max_concurrency,
        )
        assert [n for _, n in small.sequences] <= [n for _, n in large.sequences]
        assert order.index(small.verdict) <= order.index(large.verdict)


@given(ask=POSSIBLE, profile=PROFILES, cache=st.floats(0.1, 300))
def test_longer_sequences_are_never_more(ask: Ask, profile: profiles.Profile, cache: float) -> None:
    found = fit(FALCON_H1R_7B, profile, ask, kv_available_gib=cache)
    numbers = [number for _, number in found.sequences]
    assert numbers == sorted(numbers, reverse=True)


@given(ask=POSSIBLE, profile=PROFILES, cache=st.floats(0.1, 300))
def test_what_it_clamps_to_would_start(ask: Ask, profile: profiles.Profile, cache: float) -> None:
    found = fit(FALCON_H1R_7B, profile, ask, kv_available_gib=cache)
    if found.verdict != "Refused":
        again = fit(FALCON_H1R_7B, profile, replace(ask, max_num_seqs=found.max_num_seqs), kv_available_gib=cache)
        assert (again.verdict, again.max_num_seqs) == ("Fits", found.max_num_seqs)
