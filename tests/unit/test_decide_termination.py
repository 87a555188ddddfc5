"""Termination messages of any bytes: whoever wrote them, there is a reason, and a status that the API server takes."""

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broken import crashed
from tests.unit.world import World

from falcon_engine.diagnose import SIGNATURES
from falcon_engine.signatures import TRANSIENT_REASONS
from falcon_operator.api.reasons import Reason
from falcon_operator.api.status import Status


def told(message: str, code: int = 1) -> World:
    world = World()
    world.step()
    crashed(code, message)(world.add_pod())
    world.step(seconds=1)
    return world


def check(world: World) -> dict[str, Any]:
    failure: dict[str, Any] = world.status["lastFailure"]
    Status.model_validate(world.status)
    json.dumps(world.status, ensure_ascii=False).encode()
    assert world.state("Ready") == ("False", failure["reason"])
    assert failure["message"]
    assert failure["message"].isprintable()
    return failure


def wrapped(**changes: Any) -> str:
    whole = {"reason": "OutOfMemory", "message": "m", "hint": "h", "exitCode": 1, "logTail": [], "engineVersion": None}
    return json.dumps(whole | changes)


MESSAGES = {
    "nothing": "",
    "blank": " \n\t\n",
    "binary": "\x00\x01\x7f\ufffd" * 1000,
    "deep": "[" * 4096,
    "deep-objects": '{"a":' * 800,
    "cut": wrapped()[:40],
    "another-object": '{"error": "no"}',
    "lone-surrogate": wrapped(message="\ud800 here", hint="\udfff"),
    "control-characters": wrapped(message="a\u0000b\u001b[31mred\u2028c"),
    "long": wrapped(message="x" * 3900),
    "long-hint": wrapped(hint="x" * 3900),
    "long-reason": wrapped(reason="X" * 3900),
    "long-version": wrapped(engineVersion="9" * 3900),
    "huge-number": wrapped(exitCode=10**400),
    "empty-words": wrapped(reason="", message="", hint=""),
    "escapes": "\x1b[31mValueError: red\x1b[0m",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("code", [0, 1, 2, 70, 137])
def test_any_bytes_give_a_reason(message: str, code: int) -> None:
    check(told(message, code))


@settings(max_examples=50)
@given(st.text(alphabet=st.characters(codec=None), max_size=4096), st.integers(-1, 300))
def test_any_text_gives_a_reason(message: str, code: int) -> None:
    check(told(message, code))


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {
            "reason": st.text(max_size=100),
            "message": st.text(max_size=300),
            "hint": st.text(max_size=300),
            "exitCode": st.integers(),
            "logTail": st.lists(st.none() | st.integers() | st.text(max_size=20), max_size=3),
            "engineVersion": st.none() | st.text(max_size=20),
        }
    )
)
def test_any_diagnosis_gives_a_reason(raw: dict[str, Any]) -> None:
    check(told(json.dumps(raw)))


def test_the_reasons_of_all_signatures_are_known_to_the_operator() -> None:
    known = {reason.value for reason in Reason}
    assert {s.reason for s in SIGNATURES} | TRANSIENT_REASONS <= known
    assert all(set(reason) <= set(string.ascii_letters + string.digits) and len(reason) <= 64 for reason in known)
