"""Logs that nobody foresaw: cut, huge, binary, or made to be slow. Each gives a reason, and soon."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.failures import FAILURES

from falcon_engine.diagnose import SIGNATURES, diagnose
from falcon_engine.signatures import Diagnosis

# Steps of one search from one place in the text; a pattern that goes back over what it took is far above.
MOST_STEPS = 20_000
PACKAGE = Path(__file__).parents[2] / "operator"


def told(lines: list[str], code: int = 1, served: bool = False) -> Diagnosis:
    said = diagnose(code, lines, served=served, engine_version=None)
    assert said.reason
    assert said.message.endswith((".", "…"))
    assert len(said.to_json().encode()) <= 4096
    assert Diagnosis.from_json(said.to_json()).reason == said.reason
    return said


def bounds(parsed: Any) -> Iterator[int]:
    """How often each part of a pattern repeats at most, nested repeats multiplied; -1 where it has no bound."""
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, body = argument
            yield -1 if most == re._constants.MAXREPEAT else int(most)  # type: ignore[attr-defined]
            inner = list(bounds(body))
            if -1 in inner:
                yield -1
            elif inner:
                yield int(most) * max(inner)
        elif name == "SUBPATTERN":
            yield from bounds(argument[-1])
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from bounds(branch)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from bounds(argument[1])


PATTERNS = [
    pytest.param(pattern, id=f"{s.name}-{i}")
    for s in SIGNATURES
    for i, pattern in enumerate([s.pattern, *(more for more, _ in s.more)])
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_repeats_without_a_bound(pattern: str) -> None:
    found = list(bounds(re._parser.parse(pattern)))  # type: ignore[attr-defined]
    assert -1 not in found
    assert max(found, default=0) <= MOST_STEPS


def test_the_measure_sees_what_it_is_to_see() -> None:
    for slow in (r"a*b", r"(?:x{1,9}y+)?", r"(?=.*z)", r"q|(?:r|s+)"):
        assert -1 in list(bounds(re._parser.parse(slow)))  # type: ignore[attr-defined]
    assert max(bounds(re._parser.parse(r"(?:a{1,100}){1,300}"))) == 30_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.log)
def test_a_log_that_is_cut_anywhere_gives_a_reason(failure: Any) -> None:
    text = failure.text
    for end in range(0, len(text), max(len(text) // 40, 1)):
        told(text[:end].splitlines(), failure.engine_code, failure.served)
        told(text[end:].splitlines(), failure.engine_code, failure.served)


def test_binary_lines_give_a_reason() -> None:
    dice = random.Random(5)
    for _ in range(20):
        lines = [dice.randbytes(dice.randrange(3000)).decode("utf-8", "replace") for _ in range(50)]
        told(lines, dice.randrange(-70, 256), dice.random() < 0.5)
    told(["\0" * 4000] * 400)
    told(["\ud800\udfff"])


def test_of_a_huge_log_the_end_is_looked_at() -> None:
    assert told(
        ["x" * 100_000_000, "ValueError: max_num_seqs (9) exceeds available Mamba cache blocks (4)."]
    ).reason == ("SequencesExceedMemory")
    said = told(["line"] * 1_000_000 + ["OSError: [Errno 28] No space left on device"])
    assert said.reason == "DiskFull"
    assert len(said.log_tail) == 20


SLOW = """
import sys
from falcon_engine.diagnose import diagnose
words = sys.stdin.read().split("\\0")
for word in words:
    line = word * (1_000_000 // len(word))
    assert diagnose(1, [line] * 400, served=False, engine_version=None).reason
print(len(words))
"""


def test_lines_that_are_made_to_be_slow_are_not() -> None:
    """Lines of 1 MB that begin what a pattern looks for again and again and never end it."""
    words = [max(f.text.splitlines(), key=len)[:-1] for f in FAILURES[::2]]
    words += ["xError.", "Aa.Bb.", "( ", "a" * 50, ": ", "1 validation error for A ", "'", "sm_90 "]
    done = subprocess.run(
        [sys.executable, "-c", SLOW],
        input="\0".join(words),
        text=True,
        capture_output=True,
        timeout=120,
        env={"PYTHONPATH": str(PACKAGE)},
        check=True,
    )
    assert int(done.stdout) == len(words)
