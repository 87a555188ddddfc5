"""The intent and the diagnosis: what crosses from operator to launcher and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.launching import intent

from falcon_engine.intent import Intent, IntentError, Source
from falcon_engine.signatures import MESSAGE_BYTES, Diagnosis, DiagnosisError


def _changed(**changes: Any) -> str:
    return json.dumps({**json.loads(intent().to_json()), **changes})


def test_an_intent_survives_its_json() -> None:
    whole = intent(
        source=Source("huggingFace", None, "a/b", "c" * 40),
        names=("a", "b"),
        extra_args=("--x", "ü"),
        queue_requests=4,
        reasoning_parser="qwen3",
    )
    assert Intent.from_json(whole.to_json()) == whole


def test_the_json_names_are_the_resources() -> None:
    assert list(json.loads(intent().to_json())) == [
        "device",
        "version",
        "names",
        "port",
        "source",
        "checkpoint",
        "maxModelLen",
        "maxNumSeqs",
        "fit",
        "gpuMemoryUtilization",
        "kvCacheDtype",
        "prefixCaching",
        "computeFormat",
        "cudaGraphMode",
        "reasoningParser",
        "toolCallParser",
        "queueRequests",
        "queueTokens",
        "gpuResource",
        "tensorParallelSize",
        "canary",
        "drainTimeoutSeconds",
        "extraArgs",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no intent: FALCON_INTENT is empty or not set"),
        ("{", "the intent is not JSON"),
        ("[]", "intent must be an object, not []"),
        (_changed(speed=1), "intent has an unknown field 'speed'; known are device, version"),
        (_changed(port="8000"), 'intent.port must be an integer, not "8000"'),
        (_changed(port=True), "intent.port must be an integer, not true"),
        (_changed(port=0), "intent.port must be 1 to 65535, not 0"),
        (_changed(prefixCaching=1), "intent.prefixCaching must be true or false, not 1"),
        (_changed(names=[]), "intent.names must hold at least one served name"),
        (_changed(names="a"), 'intent.names must be a list of strings, not "a"'),
        (_changed(device="tpu"), 'intent.device must be one of cuda, cpu, not "tpu"'),
        (_changed(fit="Guess"), 'intent.fit must be one of Clamp, Refuse, not "Guess"'),
        (_changed(canary=None), "intent.canary must be true or false, not null"),
        (_changed(gpuResource=1), "intent.gpuResource must be a string or null, not 1"),
        (_changed(maxNumSeqs=0), "intent.maxNumSeqs must be at least 1, not 0"),
        (_changed(drainTimeoutSeconds=-1), "intent.drainTimeoutSeconds must not be negative, not -1"),
        (_changed(source={"kind": "baked"}), "intent.source lacks the field 'path'"),
        (
            _changed(source={"kind": "huggingFace", "path": None, "repository": None, "revision": None}),
            "intent.source.repository is needed where intent.source.kind is huggingFace",
        ),
    ],
)
def test_a_wrong_intent_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(IntentError) as refused:
        Intent.from_json(text)
    assert str(refused.value).startswith(sentence)


def test_another_port_is_taken_from_its_variable() -> None:
    given = {"FALCON_INTENT": intent().to_json()}
    assert Intent.from_environ(given) == Intent.from_environ({**given, "FALCON_PORT": ""}) == intent()
    assert Intent.from_environ({**given, "FALCON_PORT": "9000"}) == intent(port=9000)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80.5", "\u0664"])
def test_a_variable_that_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(IntentError, match=r"^FALCON_PORT must be 1 to 65535, not "):
        Intent.from_environ({"FALCON_INTENT": intent().to_json(), "FALCON_PORT": port})


def test_a_missing_field_is_named() -> None:
    raw = json.loads(intent().to_json())
    for name in raw:
        with pytest.raises(IntentError, match=f"intent lacks the field '{name}'"):
            Intent.from_json(json.dumps({k: v for k, v in raw.items() if k != name}))


@given(
    st.text(),
    st.text(max_size=5000),
    st.text(),
    st.integers(),
    st.none() | st.text(max_size=40),
    st.lists(st.text(max_size=2000)),
)
def test_a_diagnosis_always_fits_the_termination_message(
    reason: str, message: str, hint: str, code: int, version: str | None, tail: list[str]
) -> None:
    text = Diagnosis(reason[:40], message, hint * 10, code, version, tuple(tail)).to_json()
    assert len(text.encode()) <= MESSAGE_BYTES
    assert Diagnosis.from_json(text).exit_code == code


def test_the_newest_log_lines_are_kept() -> None:
    text = Diagnosis("EngineDied", "m", "h", 70, None, tuple(f"line {n} " + "x" * 300 for n in range(50))).to_json()
    tail = Diagnosis.from_json(text).log_tail
    assert tail[-1].startswith("line 49 ")
    assert 5 < len(tail) < 50


@pytest.mark.parametrize("text", ["", "Killed", "{}", "[]", '{"reason":1}', '{"reason":"x","message":"m","hint":"h"}'])
def test_what_is_no_diagnosis_says_so(text: str) -> None:
    with pytest.raises(DiagnosisError):
        Diagnosis.from_json(text)
