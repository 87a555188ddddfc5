"""Profiles, the command line that is rendered from them, and the check of extra arguments."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.launching import intent
from tests.engine.vllm_arguments import read

from falcon_engine import profiles
from falcon_engine.extra import check
from falcon_engine.flags import argv, notes
from falcon_engine.intent import Intent, Source
from falcon_engine.profiles import Profile
from falcon_engine.signatures import Refusal

ALL = tuple(profiles.load(v) for v in profiles.VERSIONS)


intents = st.builds(
    intent,
    device=st.sampled_from(("cuda", "cpu")),
    names=st.lists(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), min_size=1, max_size=3).map(tuple),
    port=st.integers(1, 65535),
    source=st.sampled_from((Source(), Source("volume", "/x"), Source("huggingFace", None, "a/b", "c" * 40))),
    max_model_len=st.integers(1, 10**6),
    max_num_seqs=st.integers(1, 4096),
    gpu_memory_utilization=st.floats(0.1, 0.98),
    kv_cache_dtype=st.sampled_from(("fp8", "auto")),
    prefix_caching=st.booleans(),
    cuda_graph_mode=st.sampled_from(("NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")),
    reasoning_parser=st.none() | st.just("deepseek_r1"),
    tool_call_parser=st.none() | st.just("hermes"),
    tensor_parallel_size=st.integers(1, 8),
    drain_timeout_seconds=st.integers(0, 3600),
    extra_args=st.sampled_from(((), ("--seed", "1"), ("--compilation-config.mode", "3"), ("-q", "modelopt"))),
)


@settings(deadline=None)  # the first use of a profile makes its parser
@given(intents, st.sampled_from(ALL), st.booleans())
def test_every_rendered_flag_is_one_of_the_version(wanted: Intent, profile: Profile, nvfp4: bool) -> None:
    args = argv(wanted, profile, "/models/x", nvfp4=nvfp4)
    parsed = read(profile, args)
    assert parsed["model"] == "/models/x"
    assert parsed["--served-model-name"] == list(wanted.names)
    assert parsed["--max-num-seqs"] == wanted.max_num_seqs
    assert args == argv(Intent.from_json(wanted.to_json()), profile, "/models/x", nvfp4=nvfp4)
    assert check(wanted.extra_args, profile, profile.version, exact=True) == []
    assert all(notes(wanted, profile))


def test_the_model_cards_flags_for_the_model_cards_image() -> None:
    args = argv(intent(), profiles.load("0.13"), "/models/falcon", nvfp4=True)
    assert args == [
        *("serve", "/models/falcon", "--served-model-name", "falcon-h1r-7b-nvfp4"),
        *("--host", "0.0.0.0", "--port", "8000"),
        *("--max-model-len", "65536", "--max-num-seqs", "256", "--gpu-memory-utilization", "0.88"),
        *("--kv-cache-dtype", "fp8", "--enable-prefix-caching", "--quantization", "modelopt_fp4"),
        *("--compilation-config", '{"cudagraph_mode": "FULL_AND_PIECEWISE"}'),
    ]


def _rendered(profile: str, **changes: Any) -> str:
    return " ".join(argv(intent(**changes), profiles.load(profile), "/m"))


def test_newer_engines_drain_by_themselves_and_log_less() -> None:
    newest = _rendered("0.33", drain_timeout_seconds=90)
    assert "--shutdown-timeout 90 --disable-access-log-for-endpoints /health,/metrics" in newest
    assert "--quantization" not in newest
    assert "--shutdown-timeout" not in _rendered("0.13")


@pytest.mark.parametrize("version", profiles.VERSIONS)
def test_prefix_caching_is_never_left_to_the_versions_default(version: str) -> None:
    assert "--enable-prefix-caching" in _rendered(version).split()
    assert "--no-enable-prefix-caching" in _rendered(version, prefix_caching=False).split()


@pytest.mark.parametrize("version", profiles.VERSIONS)
def test_on_cpu_nothing_of_a_gpu_is_asked_for(version: str) -> None:
    args = _rendered(version, device="cpu").split()
    assert "--enforce-eager" in args
    assert "--no-enable-prefix-caching" in args
    assert "--quantization" not in args
    assert args[args.index("--kv-cache-dtype") + 1] == "bfloat16", "an NVFP4 checkpoint may ask for FP8"
    plain = argv(intent(device="cpu"), profiles.load(version), "/models/falcon", nvfp4=False)
    assert plain[plain.index("--kv-cache-dtype") + 1] == "auto"
    assert "--gpu-memory-utilization" not in args
    assert "--compilation-config" not in args
    said = " ".join(notes(intent(device="cpu"), profiles.load(version)))
    for field in ("kvCacheDtype", "prefixCaching", "--kv-cache-memory-bytes"):
        assert field in said


def test_the_cache_on_cpu_is_the_users_where_the_user_says() -> None:
    mine = ("--kv_cache_memory_bytes=134217728",)
    assert _rendered("0.32", device="cpu", extra_args=mine).count("memory") == 1


def test_eager_mode() -> None:
    assert "--enforce-eager" in _rendered("0.33", cuda_graph_mode="NONE")
    assert "--compilation-config" not in _rendered("0.33", cuda_graph_mode="NONE")


def test_dotted_compilation_config_keeps_the_graph_mode() -> None:
    args = _rendered("0.33", cuda_graph_mode="PIECEWISE", extra_args=("--compilation-config.mode", "3"))
    assert "--compilation-config.cudagraph_mode PIECEWISE" in args


def test_a_tool_parser_turns_tool_choice_on() -> None:
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in _rendered("0.26", tool_call_parser="hermes")


def test_hugging_face_is_pinned() -> None:
    source = Source("huggingFace", None, "owner/name", "f" * 40)
    args = " ".join(argv(intent(source=source), profiles.load("0.33"), "owner/name", nvfp4=False))
    assert args.startswith("serve owner/name ")
    assert f"--revision {'f' * 40} --tokenizer-revision {'f' * 40}" in args


def test_queue_limits_need_an_engine_that_has_them() -> None:
    limits = _rendered("0.32", queue_requests=10, queue_tokens=2000)
    assert "--max-num-queued-reqs 10 --max-num-queued-tokens 2000" in limits
    with pytest.raises(Refusal) as refused:
        _rendered("0.26", queue_tokens=2000)
    said = refused.value.diagnosis
    assert said.message == "spec.engine.queueLimit.tokens is 2000, but vLLM 0.26.0 has no --max-num-queued-tokens."
    assert said.hint.endswith("or use an image with vLLM 0.30 or newer.")
    assert (said.reason, said.exit_code) == ("FlagUnknown", 2)


@pytest.mark.parametrize(
    ("version", "profile", "exact"),
    [
        ("0.13.0", "0.13.0", True),
        ("0.32.0+cpu", "0.32.0", True),
        ("v0.33.1rc2", "0.33.0", True),
        ("0.25.0", "0.25.1", True),
        ("0.23.0", "0.22.1", False),
        ("0.31.0", "0.30.0", False),
        ("1.2.0", "0.33.0", False),
        ("0.9.0", "0.13.0", False),
        ("main", "0.13.0", False),
        (None, "0.13.0", False),
    ],
)
def test_a_version_gets_its_profile_or_the_nearest_older(version: str | None, profile: str, exact: bool) -> None:
    chosen, is_exact = profiles.select(version)
    assert (chosen.version, is_exact) == (profile, exact)


@pytest.mark.parametrize(
    ("version", "base", "neighbours"),
    [
        ("0.28.1", "0.26", ("0.26", "0.30")),
        ("0.34.0", "0.33", ("0.33", "0.32")),
        ("0.9.2", "0.13", ("0.13", "0.13")),
        (None, "0.13", profiles.VERSIONS),
    ],
)
def test_an_unknown_version_gets_no_flag_that_it_may_lack(
    version: str | None, base: str, neighbours: tuple[str, ...]
) -> None:
    profile, exact = profiles.select(version)
    assert (profile.version, exact, profile.flags_complete) == (profiles.load(base).version, False, False)
    assert set(profile.flags) == set.intersection(*(set(profiles.load(n).flags) for n in neighbours))
    args = argv(intent(drain_timeout_seconds=90), profile, "/m")
    assert "--disable-access-log-for-endpoints" not in args
    assert ("--shutdown-timeout" in args) is (base in ("0.26", "0.33"))
    # What the user asks for is checked against all that the nearest version knows.
    assert profile.names() == profiles.load(base).names()
    assert notes(intent(reasoning_parser="of_tomorrow"), profile) == notes(intent(), profile)


def test_a_queue_limit_that_an_unknown_version_may_lack() -> None:
    with pytest.raises(Refusal) as refused:
        argv(intent(queue_requests=5), profiles.select("0.28.0")[0], "/m")
    said = refused.value.diagnosis.message
    assert said.endswith("is 5, but it is not known whether this vLLM has --max-num-queued-reqs.")


def test_a_parser_that_the_version_does_not_bring_is_said() -> None:
    profile = profiles.load("0.33")
    assert notes(intent(reasoning_parser="deepseek_r1", tool_call_parser="hermes"), profile) == []
    assert notes(intent(reasoning_parser="deepseek-r1", tool_call_parser="zzz"), profile) == [
        "reasoningParser deepseek-r1 is none of vLLM 0.33.0 (the nearest is deepseek_r1): "
        "a plugin in the image must bring it",
        "toolCallParser zzz is none of vLLM 0.33.0: a plugin in the image must bring it",
    ]


def test_the_known_versions() -> None:
    assert profiles.VERSIONS == ("0.13", "0.18", "0.20", "0.22", "0.24", "0.25", "0.26", "0.30", "0.32", "0.33")


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("--max-num-seqs", "--max-num-seqs"),
        ("--max_num_seqs=4", "--max-num-seqs"),
        ("--no-enable-prefix-caching", "--enable-prefix-caching"),
        ("--compilation-config.mode=3", "--compilation-config"),
        ("-cc.pass_config.fuse_norm_quant", "--compilation-config"),
        ("-tp", "--tensor-parallel-size"),
        ("-tp=2", "--tensor-parallel-size"),
        ("-O3", "--optimization-level"),
        ("-O", "--optimization-level"),
        ("--device-memory-utilization", "--gpu-memory-utilization"),
        ("--disable-chunked-prefill", "--enable-chunked-prefill"),
        ("--no-max-num-seqs", None),
        ("--max-num", None),
        ("-x", None),
    ],
)
def test_arguments_are_read_as_the_engine_reads_them(argument: str, name: str | None) -> None:
    flag = profiles.load("0.33").lookup(argument)
    assert (flag.name if flag else None) == name


def test_values_are_not_taken_for_flags() -> None:
    extra = ("--max-model-len", "-1", "--hf-overrides", '{"a": "--b"}', "--lora-modules", "a=b", "c=d")
    assert check(extra, profiles.load("0.33"), "0.33.0", exact=True) == []


@pytest.mark.parametrize(
    ("argument", "reason", "words"),
    [
        ("--max-num-sequences", "FlagUnknown", "vLLM 0.33.0 does not know"),
        ("--swap-space=4", "FlagUnknown", "--swap-space"),
        ("--api-key=x", "FlagValueRefused", "not allowed: keys belong in spec.gateway.apiKeys"),
        ("--model", "FlagValueRefused", "not allowed: the operator sets it"),
        ("--served_model_name", "FlagValueRefused", "not allowed"),
        ("--ssl-keyfile", "FlagValueRefused", "TLS belongs to the gateway"),
        ("--otlp_traces_endpoint=http://x", "FlagValueRefused", "not allowed"),
        ("--config=x.yaml", "FlagValueRefused", "reads any flag from a file"),
        ("--trust-remote", "FlagUnknown", "may read as --trust-remote-code"),
    ],
)
def test_refused_extra_arguments(argument: str, reason: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        check((argument,), profiles.load("0.33"), "0.33.0", exact=True)
    said = refused.value.diagnosis
    assert (said.reason, said.exit_code) == (reason, 2)
    assert words in said.message
    assert "spec.engine.extraArgs" in said.hint


def test_a_key_given_as_a_value_is_not_repeated() -> None:
    with pytest.raises(Refusal) as refused:
        check(("--api-key=secret",), profiles.load("0.33"), "0.33.0", exact=True)
    assert "secret" not in refused.value.diagnosis.to_json()


def test_another_versions_list_only_warns_but_guards() -> None:
    profile = profiles.load("0.33")
    assert check(("--brand-new", "1"), profile, "0.34.0", exact=False)[0].startswith("extraArgs --brand-new is not in")
    for abbreviation in ("--trust-remote", "--api", "--middle", "--served"):
        with pytest.raises(Refusal):
            check((abbreviation, "x"), profile, "0.34.0", exact=False)
