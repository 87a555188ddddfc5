"""The contract of the flags: whatever a valid spec says, the command line has only what that version of vLLM knows."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.vllm_arguments import read
from tests.unit.flag_specs import ALL, SPECS, spec_of

from falcon_engine import profiles
from falcon_engine.extra import check
from falcon_engine.flags import argv, notes
from falcon_engine.profiles import Flag, Profile
from falcon_engine.signatures import Refusal
from falcon_operator.api.spec import Spec
from falcon_operator.desired.intent import intent

QUEUE = {"requests": "--max-num-queued-reqs", "tokens": "--max-num-queued-tokens"}


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(SPECS, st.booleans())
def test_every_version_knows_what_any_spec_leads_to(spec: Spec, nvfp4: bool) -> None:
    wanted = intent(spec, "image")
    limits = spec.engine.queue_limit.model_dump(exclude_none=True) if spec.engine.queue_limit else {}
    for profile in [*ALL, profiles.select(None)[0], profiles.select("0.28")[0], profiles.select("9.0")[0]]:
        if lacking := [flag for name, flag in QUEUE.items() if name in limits and not profile.has(flag)]:
            with pytest.raises(Refusal, match=lacking[0]):
                argv(wanted, profile, "/models/x", nvfp4=nvfp4)
            continue
        given_values = read(profile, argv(wanted, profile, "/models/x", nvfp4=nvfp4))
        assert given_values["model"] == "/models/x"
        assert given_values["--served-model-name"] == list(spec.model.names)
        assert given_values["--max-model-len"] == spec.engine.max_model_len
        assert given_values["--max-num-seqs"] == spec.engine.max_num_seqs
        assert given_values["--enable-prefix-caching"] is (spec.engine.prefix_caching and wanted.device == "cuda")
        assert given_values.get("--shutdown-timeout") in (None, spec.rollout.drain_timeout_seconds)
        assert given_values["--reasoning-parser"] == spec.engine.reasoning_parser
        assert {name: given_values.get(flag) for name, flag in QUEUE.items() if name in limits} == limits
        assert not [note for note in notes(wanted, profile) if "Parser" in note]


def _value(flag: Flag) -> st.SearchStrategy[str]:
    if flag.choices:
        return st.sampled_from([str(c) for c in flag.choices])
    match flag.type:
        case "int":
            return st.integers(1, 9).map(str)
        case "float":
            return st.floats(0.1, 0.9).map(str)
        case "json":
            return st.just('{"a": 1}')
    return st.sampled_from(("auto", "/a/b", "x=y", "-1"))


@st.composite
def extra_args(draw: st.DrawFn, profile: Profile) -> list[str]:
    allowed = [f for f in profile.flags.values() if _allowed(f, profile)]
    args = []
    for flag in draw(st.lists(st.sampled_from(allowed), max_size=4, unique_by=lambda f: f.name)):
        name = draw(st.sampled_from([n for n in (flag.name, *flag.also) if n.startswith("--")]))
        value = draw(_value(flag))
        if flag.kind in ("flag", "switch"):
            off = flag.kind == "switch" and draw(st.booleans())
            args.append(f"--no-{name[2:]}" if off else name)
        elif flag.kind == "values" or draw(st.booleans()):
            args += [name, value]
        else:
            args.append(f"{name}={value}")
    return args


def _allowed(flag: Flag, profile: Profile) -> bool:
    try:
        return check([flag.name], profile, profile.version, exact=True) == []
    except Refusal:
        return False


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.version)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_users_own_flags_of_the_version_go_with_the_rest(profile: Profile, data: st.DataObject) -> None:
    extra = data.draw(extra_args(profile))
    wanted = intent(
        spec_of({"engine": {"extraArgs": extra, "device": data.draw(st.sampled_from(("cuda", "cpu")))}}), "x"
    )
    assert check(wanted.extra_args, profile, profile.version, exact=True) == []
    read(profile, argv(wanted, profile, "/models/x"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--max-num-seqs", "many"], "invalid whole value: 'many'"),
        (["--max-num-seqs"], "expected one argument"),
        (["--tool-call-parser", "of_mine"], "invalid choice: 'of_mine'"),
        (["--compilation-config", "{"], "invalid loads value"),
        (["--swap-space", "4"], "unrecognized arguments: --swap-space"),
        (["--enforce-eager=1"], "ignored explicit argument"),
    ],
)
def test_the_reader_of_these_tests_refuses_what_a_version_has_not(args: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(profiles.load("0.33"), ["serve", "/m", *args])
