"""From last words to a reason: each signature on the log of an engine that failed so."""

import json
import re

import pytest
from tests.engine.failures import FAILURES, LOGS, Failure

from falcon_engine.diagnose import SIGNATURES, diagnose
from falcon_engine.signatures import Diagnosis

PREFIX = "(EngineCore pid=71) ERROR 11-24 13:00:00 [core.py:1100] "


def told(failure: Failure) -> Diagnosis:
    lines = failure.text.splitlines()
    return diagnose(failure.engine_code, lines, served=failure.served, engine_version="0.33.0")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.log)
def test_last_words(failure: Failure) -> None:
    said = told(failure)
    assert (said.reason, said.exit_code, said.engine_version) == (failure.reason, failure.code, "0.33.0")
    for word in failure.words:
        assert word in f"{said.message} {said.hint}"
    for sentence in (said.message, said.hint):
        assert sentence.endswith(".")
        for slip in ("..", "{", "}", "  ", " .", "None"):
            assert slip not in sentence
    assert Diagnosis.from_json(said.to_json()).message == said.message, "nothing of it is cut off"


def test_every_signature_has_a_log_and_every_log_a_signature() -> None:
    names = [s.name for s in SIGNATURES]
    assert sorted(names) == sorted(f.log for f in FAILURES)
    assert set(names) <= {p.stem for p in LOGS.glob("*.log")}
    assert len(names) == len(set(names))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.log)
def test_it_is_the_signature_of_that_name_that_finds_it(failure: Failure) -> None:
    found = next(s for s in SIGNATURES if s.served in (None, failure.served) and re.search(s.pattern, failure.text))
    assert found.name == failure.log


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.log)
def test_every_log_says_where_it_comes_from(failure: Failure) -> None:
    assert failure.origin.startswith(("# real: ", "# made from "))


def test_the_cause_comes_before_its_consequence() -> None:
    lines = [
        PREFIX + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    ]
    assert diagnose(1, lines, served=False, engine_version=None).reason == "GPUOutOfMemory"


def test_the_hubs_exact_answer_comes_before_the_lost_connection_that_it_is_wrapped_in() -> None:
    [forbidden] = [f for f in FAILURES if f.log == "hub-forbidden"]
    assert "LocalEntryNotFoundError" in forbidden.text
    assert told(forbidden).reason == "HubForbidden"


def test_a_death_while_serving_keeps_its_reason_and_its_exit_code() -> None:
    said = diagnose(0, ["torch.OutOfMemoryError: CUDA out of memory."], served=True, engine_version=None)
    assert (said.reason, said.exit_code) == ("GPUOutOfMemory", 70)
    assert "died while it served" in said.message


def test_the_last_error_is_quoted_where_nothing_is_known() -> None:
    lines = [PREFIX + "IndexError: index 2 is out of bounds", "RuntimeError: Engine core initialization failed. x"]
    said = diagnose(1, lines, served=False, engine_version=None)
    assert said.reason == "EngineStartFailed"
    assert said.message.endswith("Its last error: IndexError: index 2 is out of bounds.")


def test_a_warning_that_names_an_exception_is_not_the_last_error() -> None:
    warning = (
        "(APIServer pid=1) WARNING 11-24 10:47:33 [system_utils.py:299] such as `OSError: [Errno 24] Too many files`"
    )
    said = diagnose(1, ["KeyError: 'first'", warning], served=False, engine_version=None)
    assert said.message.endswith("Its last error: KeyError: 'first'.")


def test_the_kernels_count_beats_the_log() -> None:
    said = diagnose(0, ["EngineDeadError: x"], served=True, engine_version=None, memory_kills=1)
    assert (said.reason, said.exit_code) == ("OutOfMemory", 70)
    assert "container's memory limit" in said.message


@pytest.mark.parametrize(
    ("code", "reason", "word"),
    [
        (-9, "EngineKilled", "SIGKILL"),
        (-7, "SharedMemoryTooSmall", "/dev/shm"),
        (-4, "ImageUnusable", "instruction"),
        (-11, "EngineStartFailed", "SIGSEGV"),
        (-64, "EngineStartFailed", "SIG"),
        (-200, "EngineStartFailed", "signal 200"),
    ],
)
def test_signals_have_names(code: int, reason: str, word: str) -> None:
    said = diagnose(code, [], served=False, engine_version=None)
    assert (said.reason, word in said.message) == (reason, True)
    assert diagnose(code, [], served=True, engine_version=None).exit_code == 70


def test_a_diagnosis_fits_into_a_termination_message_whatever_is_in_it() -> None:
    huge = "\ud83e\udd85" * 5000
    for version in (None, "", "x" * 5000):
        text = Diagnosis(huge, huge, huge, 1, version, (huge,) * 20).to_json()
        assert len(text.encode()) <= 4096
        assert json.loads(text)["exitCode"] == 1
