"""The fit's sums against what vLLM printed, and against each version's rules as its source has them."""

import math
from dataclasses import replace
from typing import Any

import pytest

from falcon_engine import profiles
from falcon_engine.fit import Ask, Fit, fit, kv_available_gib, least_gpu_gib, visible_gib
from falcon_engine.shape import FALCON_H1R_7B, ModelShape

CARD = Ask(
    max_model_len=65536,
    max_num_seqs=256,
    gpu_memory_utilization=0.88,
    kv_cache_dtype="fp8",
    prefix_caching=True,
    weights="nvfp4",
)
H200 = 139.8
H100 = 79.18
GIB = 1 << 30
# A Falcon-H1 of 0.68 M parameters, made for tests on CPU.
TINY = ModelShape(
    hidden_size=128,
    layers=2,
    attention_heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate_size=256,
    mamba_d_ssm=128,
    mamba_heads=4,
    mamba_head_dim=32,
    mamba_d_state=32,
    mamba_groups=1,
    mamba_d_conv=4,
    mamba_chunk=64,
    vocab_size=1024,
    tied_embeddings=False,
    max_positions=4096,
)


def profile(version: str) -> profiles.Profile:
    return profiles.select(version)[0]


def per_sequence(found: Fit) -> int:
    """Blocks that one sequence of the longest length takes."""
    return round(found.blocks / found.max_concurrency)


# What vLLM 0.26.0 printed, by the GiB that it saw of an H200 and an H100 80GB: available GiB, block, blocks, tokens,
# concurrency at 65,536 tokens.
PRINTED = [
    pytest.param(H200, {}, 115.91, 3328, 1660, 2_719_744, 41.50, 5.19, id="nvfp4"),
    pytest.param(H200, {}, 115.97, 3328, 1660, 2_719_744, 41.50, 5.19, id="nvfp4-second-start"),
    pytest.param(H200, {"weights": "bf16"}, 106.79, 3328, 1529, 2_505_113, 38.23, 14.26, id="bf16"),
    pytest.param(
        H200, {"prefix_caching": False}, 115.91, 3120, 1770, 5_043_422, 76.96, 5.19, id="nvfp4-no-prefix-caching"
    ),
    pytest.param(H100, {}, 62.58, 3328, 896, 1_468_006, 22.40, 5.19, id="h100"),
    pytest.param(
        H100, {"prefix_caching": False, "max_num_seqs": 938}, 61.70, 3120, 942, 2_684_126, 40.96, 5.19, id="h100-938"
    ),
    pytest.param(
        H100,
        {"prefix_caching": False, "cuda_graph_mode": "NONE"},
        63.47,
        3120,
        969,
        2_761_060,
        42.13,
        5.19,
        id="h100-eager",
    ),
]


@pytest.mark.parametrize(
    ("gpu", "changes", "available", "block", "blocks", "tokens", "concurrency", "weights"), PRINTED
)
def test_blocks_tokens_and_concurrency_are_as_the_engine_printed_them(
    gpu: float,
    changes: dict[str, Any],
    available: float,
    block: int,
    blocks: int,
    tokens: int,
    concurrency: float,
    weights: float,
) -> None:
    found = fit(FALCON_H1R_7B, profile("0.26.0"), replace(CARD, **changes), kv_available_gib=available)
    assert (found.block_tokens, found.blocks, found.tokens) == (block, blocks, tokens)
    # 38.225 was printed as 38.23.
    assert found.max_concurrency == pytest.approx(concurrency, abs=0.0051)
    assert found.weights_gib == pytest.approx(weights, abs=0.01)
    assert (found.verdict, found.max_num_seqs) == ("Fits", changes.get("max_num_seqs", 256))


@pytest.mark.parametrize(
    ("gpu", "changes", "available", "block", "blocks", "tokens", "concurrency", "weights"), PRINTED
)
def test_the_estimate_of_the_memory_is_within_a_quarter_of_a_percent_of_what_was_measured(
    gpu: float,
    changes: dict[str, Any],
    available: float,
    block: int,
    blocks: int,
    tokens: int,
    concurrency: float,
    weights: float,
) -> None:
    ask = replace(CARD, **changes)
    assert kv_available_gib(FALCON_H1R_7B, profile("0.26.0"), ask, gpu) == pytest.approx(available, rel=0.0025)
    found = fit(FALCON_H1R_7B, profile("0.26.0"), ask, gpu_gib=gpu)
    assert found.blocks == pytest.approx(blocks, rel=0.0025)
    assert found.tokens == pytest.approx(tokens, rel=0.0025)


def test_the_cpu_engine_is_met_too() -> None:
    """vLLM 0.32 on CPU: 128 MiB hold 2,048 blocks of 128 tokens, 62.06 sequences of 4,096, 254,200 tokens."""
    ask = replace(CARD, device="cpu", max_model_len=4096, kv_cache_dtype="auto", prefix_caching=False,
                  ssm_dtype="float32", kv_cache_memory_bytes=128 << 20, weights="bf16")  # fmt: skip
    found = fit(TINY, profile("0.32.0"), ask)
    assert (found.block_tokens, found.blocks, found.tokens) == (128, 2048, 254_200)
    assert found.max_concurrency == 62.06060606060606


@pytest.mark.parametrize(("caching", "concurrency"), [(False, 13.92), (True, 11.93)])
def test_the_seven_billion_shape_on_cpu_has_blocks_of_6272_tokens(caching: bool, concurrency: float) -> None:
    """Printed on CPU with 167 blocks: 13.92x without prefix caching, 11.93x with it."""
    ask = replace(CARD, device="cpu", prefix_caching=caching, ssm_dtype="float32")
    page = 44 * 6272 * 512
    found = fit(FALCON_H1R_7B, profile("0.32.0"), ask, kv_available_gib=167.5 * page / GIB)
    assert (found.block_tokens, found.blocks) == (6272, 167)
    assert found.max_concurrency == pytest.approx(concurrency, abs=0.005)


# Tokens of a block and blocks of one sequence of 65,536 tokens: with prefix caching, and without.
@pytest.mark.parametrize(
    ("version", "caching", "without"),
    [
        ("0.13.0", (3328, 40), (3120, 23)),
        ("0.18.1", (3328, 40), (3120, 23)),
        ("0.20.2", (3328, 40), (3120, 23)),
        ("0.22.1", (3328, 40), (3120, 23)),
        ("0.24.0", (3328, 40), (3120, 23)),
        ("0.25.1", (3328, 40), (3120, 23)),
        ("0.26.0", (3328, 40), (3120, 23)),
        ("0.30.0", (3120, 24), (3120, 23)),
        ("0.32.0", (3120, 25), (3120, 23)),
        ("0.33.0", (3120, 25), (3120, 23)),
    ],
)
def test_each_version_cuts_by_its_own_rules(version: str, caching: tuple[int, int], without: tuple[int, int]) -> None:
    for on, (tokens, blocks) in ((True, caching), (False, without)):
        found = fit(FALCON_H1R_7B, profile(version), replace(CARD, prefix_caching=on), kv_available_gib=100)
        assert (found.block_tokens, per_sequence(found)) == (tokens, blocks)


@pytest.mark.parametrize(("version", "tokens"), [("0.13.0", 830 * 3328), ("0.18.1", 830 * 3328), ("0.20.2", 2_719_744)])
def test_the_oldest_versions_print_their_tokens_otherwise(version: str, tokens: int) -> None:
    assert fit(FALCON_H1R_7B, profile(version), CARD, kv_available_gib=115.91).tokens == tokens


@pytest.mark.parametrize(
    ("changes", "block"),
    [
        ({}, 3120),
        ({"kv_cache_dtype": "auto"}, 1568),
        ({"ssm_dtype": "float32"}, 6192),
        ({"kv_cache_dtype": "auto", "ssm_dtype": "float32"}, 3104),
        ({"kv_cache_dtype": "bfloat16", "mamba_dtype": "float32"}, 3120),
        ({"kv_cache_dtype": "fp8_e5m2"}, 3120),
        ({"block_size": 64}, 3136),
        ({"block_size": 4096}, 4096),
        ({"tensor_parallel_size": 2}, 3120),
        ({"tensor_parallel_size": 4}, 1568),
    ],
)
def test_number_formats_block_size_and_tensor_parallel_change_the_block(changes: dict[str, Any], block: int) -> None:
    found = fit(FALCON_H1R_7B, profile("0.33.0"), replace(CARD, prefix_caching=False, **changes), kv_available_gib=60)
    assert found.block_tokens == block


def test_in_mode_all_a_block_is_a_multiple_of_the_chunk_and_a_larger_one_leaves_the_states_as_they_are() -> None:
    small = replace(FALCON_H1R_7B, mamba_chunk=128)
    assert fit(small, profile("0.26.0"), CARD, kv_available_gib=60).block_tokens == 3200
    found = fit(FALCON_H1R_7B, profile("0.26.0"), replace(CARD, mamba_block_size=512), kv_available_gib=60)
    assert found.block_tokens == 3584
    found = fit(FALCON_H1R_7B, profile("0.26.0"), replace(CARD, block_size=8192), kv_available_gib=60)
    assert (found.block_tokens, per_sequence(found)) == (8192, 8 + 8)
    found = fit(FALCON_H1R_7B, profile("0.26.0"), replace(CARD, mamba_cache_mode="align"), kv_available_gib=60)
    assert (found.block_tokens, per_sequence(found)) == (3120, 22 + 2)


def test_auto_follows_the_checkpoint_where_the_version_does() -> None:
    ask = replace(CARD, kv_cache_dtype="auto", prefix_caching=False)
    shape = replace(FALCON_H1R_7B, kv_cache_dtype="fp8")
    assert fit(shape, profile("0.26.0"), ask, kv_available_gib=60).block_tokens == 3120
    assert fit(shape, profile("0.13.0"), ask, kv_available_gib=60).block_tokens == 1568


def test_sequences_are_counted_without_the_block_that_the_engine_keeps() -> None:
    found = fit(FALCON_H1R_7B, profile("0.26.0"), CARD, kv_available_gib=115.91)
    assert dict(found.sequences) == {1024: 1659 // 2, 4096: 1659 // 4, 16384: 1659 // 10, 65536: 41}


def test_fewer_blocks_than_sequences_are_clamped_or_refused() -> None:
    ask = replace(CARD, max_num_seqs=1024)
    clamped = fit(FALCON_H1R_7B, profile("0.26.0"), ask, kv_available_gib=14)
    assert (clamped.verdict, clamped.max_num_seqs, clamped.blocks) == ("Clamped", 200, 200)
    assert "lowered from 1,024 to 200" in clamped.message
    refused = fit(FALCON_H1R_7B, profile("0.26.0"), ask, kv_available_gib=14, clamp=False)
    assert (refused.verdict, refused.max_num_seqs) == ("Refused", 200)
    assert "lower it to 200" in refused.message


@pytest.mark.parametrize(
    ("version", "changes"),
    [("0.18.1", {}), ("0.26.0", {"cuda_graph_mode": "NONE"}), ("0.26.0", {"cuda_graph_mode": "PIECEWISE"})],
)
def test_where_the_engine_does_not_mind_nothing_is_clamped(version: str, changes: dict[str, Any]) -> None:
    found = fit(FALCON_H1R_7B, profile(version), replace(CARD, max_num_seqs=1024, **changes), kv_available_gib=14)
    assert (found.verdict, found.max_num_seqs) == ("Fits", 1024)


def test_a_sequence_that_is_too_long_is_refused_with_the_longest_that_holds() -> None:
    refused = fit(FALCON_H1R_7B, profile("0.33.0"), CARD, kv_available_gib=1)
    assert refused.verdict == "Refused"
    assert "lower max_model_len to at most 34,320" in refused.message
    for length, verdict in ((34_320, "Clamped"), (34_321, "Refused")):
        ask = replace(CARD, max_model_len=length)
        assert fit(FALCON_H1R_7B, profile("0.33.0"), ask, kv_available_gib=1).verdict == verdict


def test_longer_than_the_model_takes_is_refused_unless_an_argument_changes_that() -> None:
    ask = replace(CARD, max_model_len=300_000)
    found = fit(FALCON_H1R_7B, profile("0.33.0"), ask, gpu_gib=H200)
    assert (found.verdict, found.blocks) == ("Refused", 0)
    assert "262,144" in found.message
    ask = replace(ask, positions_overridden=True)
    assert fit(FALCON_H1R_7B, profile("0.33.0"), ask, gpu_gib=H200).verdict == "Fits"


def test_bytes_for_the_cache_count_before_the_estimate_and_must_be_there() -> None:
    ask = replace(CARD, kv_cache_memory_bytes=20 * GIB)
    assert fit(FALCON_H1R_7B, profile("0.26.0"), ask, gpu_gib=H200).kv_available_gib == 20
    assert fit(FALCON_H1R_7B, profile("0.26.0"), ask, kv_available_gib=30).kv_available_gib == 30
    refused = fit(FALCON_H1R_7B, profile("0.26.0"), ask, gpu_gib=24)
    assert refused.verdict == "Refused"
    assert "--kv-cache-memory-bytes" in refused.message


def test_engines_that_share_a_gpu_take_their_part_each() -> None:
    alone = kv_available_gib(FALCON_H1R_7B, profile("0.33.0"), CARD, 80)
    shared = kv_available_gib(FALCON_H1R_7B, profile("0.33.0"), replace(CARD, sharers=2), 80)
    assert shared == pytest.approx(alone - 0.88 * 80 / 2)


@pytest.mark.parametrize("version", profiles.VERSIONS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weights": "bf16", "kv_cache_dtype": "auto"},
        {"max_num_seqs": 2000},
        {"tensor_parallel_size": 2},
        {"sharers": 4},
        {"kv_cache_memory_bytes": 90 * GIB},
        {"max_num_batched_tokens": 32768},
    ],
)
@pytest.mark.parametrize("clamp", [True, False])
def test_below_the_least_memory_it_is_refused_and_from_there_on_it_is_not(
    version: str, changes: dict[str, Any], clamp: bool
) -> None:
    ask = replace(CARD, **changes)
    least = least_gpu_gib(FALCON_H1R_7B, profile(version), ask, clamp=clamp)
    assert fit(FALCON_H1R_7B, profile(version), ask, gpu_gib=least, clamp=clamp).verdict != "Refused"
    assert fit(FALCON_H1R_7B, profile(version), ask, gpu_gib=least - 0.01, clamp=clamp).verdict == "Refused"


def test_no_gpu_suffices_for_what_cannot_be() -> None:
    impossible: list[dict[str, Any]] = [
        {"tensor_parallel_size": 5}, {"kv_cache_memory_bytes": 1 << 20}, {"max_model_len": 0},
    ]  # fmt: skip
    for changes in impossible:
        assert least_gpu_gib(FALCON_H1R_7B, profile("0.33.0"), replace(CARD, **changes), clamp=True) == math.inf


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tensor_parallel_size": 5}, "12 attention heads cannot be split over 5"),
        ({"kv_cache_dtype": "int3"}, "kv_cache_dtype is int3"),
        ({"ssm_dtype": "fp99"}, "mamba_ssm_cache_dtype is fp99"),
        ({"weights": "int4"}, "format is int4"),
        ({"max_num_seqs": -1}, "max_num_seqs is -1"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization is nan"),
        ({"kv_cache_memory_bytes": 0}, "kv_cache_memory_bytes is 0"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name_and_value(changes: dict[str, Any], word: str) -> None:
    found = fit(FALCON_H1R_7B, profile("0.33.0"), replace(CARD, **changes), gpu_gib=H200)
    assert found.verdict == "Refused"
    assert word in found.message


def test_without_any_memory_it_says_so() -> None:
    assert fit(FALCON_H1R_7B, profile("0.33.0"), CARD).message == "How much memory the engine gets is not known."


@pytest.mark.parametrize(
    ("mib", "seen"),
    [
        (143771, 139.80),
        (183359, 178.35),
        (189471, 184.31),
        (81559, 79.18),
        (32607, 31.36),
        (97887, 94.97),
        (15360, 14.56),
    ],
)
def test_the_drivers_memory_becomes_what_the_engine_sees(mib: int, seen: float) -> None:
    assert visible_gib(mib) == pytest.approx(seen, abs=0.1)


def test_a_mig_instance_has_what_is_stated_and_nonsense_is_nothing() -> None:
    assert visible_gib(9984, mig=True) == 9.75
    assert [visible_gib(value) for value in (-1, 0, float("nan"), float("inf"))] == [0.0] * 4
