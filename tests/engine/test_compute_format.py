"""Which format weights are computed in: by what was measured, and what there is room for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_engine import compute_format, profiles
from falcon_engine.ask import Ask
from falcon_engine.compute_format import AUTO, BF16, FP8, NVFP4, Choice, Facts, choose
from falcon_engine.gpu_memory import FORMATS
from falcon_engine.intent import COMPUTE_FORMATS
from falcon_engine.profiles import capability
from falcon_engine.shape import FALCON_H1R_7B

H200 = Facts("cuda", "NVIDIA H200", "9.0", "0.26.0", 256)
ASK = Ask(65536, 256, 0.88, "fp8", True, "nvfp4")
PROFILE = profiles.load("0.26")

SAID = {"vllm": "0.26.0", "flags": "", "load": "", "source": "a test"}
MEASURED = [
    {
        **SAID, "capabilities": ">=9.0,<10.0", "device": "NVIDIA H200",
        "rows": [
            {"sequences": 1, "NVFP4": 100, "BF16": 80, "FP8": 90},
            {"sequences": 32, "NVFP4": 100, "BF16": 102, "FP8": 130},
            {"sequences": 256, "NVFP4": 100, "BF16": 140, "FP8": 180},
        ],
    },
    {
        **SAID, "capabilities": ">=8.9,<9.0", "device": "NVIDIA L40S",
        "rows": [{"sequences": 256, "NVFP4": 100, "BF16": 140}],
    },
]  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_format, "winners", lambda: tuple(MEASURED))


def nothing(_form: str) -> None:
    return None


def lacking(*forms: str) -> Callable[[str], str | None]:
    return lambda form: "its disk is full" if form in forms else None


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("asked", "facts", "lacks", "form", "words"),
    [
        (AUTO, H200, nothing, FP8, ["FP8 was 1.80 times as fast as NVFP4 at 256 sequences on an NVIDIA H200"]),
        (AUTO, H200, lacking(FP8), BF16, ["BF16 was 1.40", "FP8 would be 1.80", "but its disk is full"]),
        (AUTO, H200, lacking(FP8, BF16), NVFP4, ["FP8 would be 1.80", "BF16 would be 1.40", "but its disk is full"]),
        (AUTO, Facts("cuda", "NVIDIA H200", "9.0", "0.26.0", 1), nothing, NVFP4, ["No other format", "1 seq"]),
        (AUTO, Facts("cuda", "NVIDIA H200", "9.0", "0.26.0", 40), lacking(FP8), NVFP4, ["FP8 would be 1.30", "32 seq"]),
        (AUTO, Facts("cuda", "NVIDIA H200", "9.0", "0.13.0", 256), nothing, BF16, ["vLLM 0.13.0 does not load it"]),
        (AUTO, Facts("cuda", "NVIDIA H100 NVL", "9.0", None, 4096), nothing, FP8, ["NVIDIA H200"]),
        (AUTO, Facts("cuda", "NVIDIA L40S", "8.9", "0.33.0", 2), nothing, BF16, ["NVIDIA L40S"]),
        (AUTO, Facts("cuda", "NVIDIA B200", "10.0", "0.26.0"), nothing, NVFP4, ["B200", "multiplies FP4"]),
        (AUTO, Facts("cuda", "NVIDIA GB10", "12.1", "0.33.0"), nothing, NVFP4, ["multiplies FP4 numbers itself"]),
        (AUTO, Facts("cuda", "Tesla T4", "7.5", "0.26.0"), nothing, NVFP4, ["No other format was measured", "T4"]),
        (AUTO, Facts("cuda"), nothing, NVFP4, ["compute capability is not known"]),
        (AUTO, Facts("cpu"), nothing, NVFP4, ["engine.device is cpu"]),
        (BF16, Facts("cpu"), lacking(BF16), BF16, ["engine.computeFormat says BF16."]),
        (FP8, Facts("cuda", "NVIDIA B200", "10.0"), nothing, FP8, ["engine.computeFormat says FP8."]),
        (NVFP4, H200, nothing, NVFP4, ["engine.computeFormat says NVFP4."]),
    ],
)  # fmt: skip
def test_the_table(asked: str, facts: Facts, lacks: compute_format.Lacks, form: str, words: list[str]) -> None:
    choice = choose(asked, facts, lacks)
    assert choice.format == form
    assert all(word in choice.why for word in words), choice.why
    assert choice.asked == (asked != AUTO)


@given(
    asked=st.sampled_from(COMPUTE_FORMATS),
    facts=st.builds(
        Facts,
        device=st.sampled_from(["cuda", "cpu"]),
        product=st.none() | st.sampled_from(["NVIDIA H200", "NVIDIA H100", "\N{SNOWMAN}", ""]),
        capability=st.none() | st.sampled_from(["7.5", "8.0", "8.9", "9.0", "10.0", "10.3", "12.1"]),
        version=st.none() | st.sampled_from(["0.13.0", "0.26.0", "0.33.0", "odd"]),
        sequences=st.integers(1, 8192),
    ),
    problems=st.sets(st.sampled_from([FP8, BF16])),
)
def test_whatever_is_known_there_is_one_format_and_one_line_on_why(
    asked: str, facts: Facts, problems: set[str]
) -> None:
    asked_for: list[str] = []

    def lacks(form: str) -> str | None:
        asked_for.append(form)
        return "it has no room" if form in problems else None

    choice = choose(asked, facts, lacks)
    assert choice == choose(asked, facts, lacks)
    assert choice.format in (NVFP4, FP8, BF16)
    assert choice.why.endswith(".")
    assert "\n" not in choice.why
    if asked != AUTO:
        assert choice == Choice(asked, choice.why, asked=True)
    else:
        assert choice.format not in problems
        assert choice.format == NVFP4 or (facts.device == "cuda" and facts.capability == "9.0")
        assert NVFP4 not in asked_for


def test_the_measurements_are_whole_and_say_where_they_are_from() -> None:
    assert compute_format.winners()
    for entry in compute_format.winners():
        assert entry.keys() == {"capabilities", "device", "vllm", "flags", "load", "source", "rows"}
        assert all(entry[key].strip() for key in entry.keys() - {"rows"})
        capability.words(entry["capabilities"])
        assert profiles.parse(entry["vllm"])
        sequences = [row["sequences"] for row in entry["rows"]]
        assert sequences == sorted(set(sequences))
        for row in entry["rows"]:
            assert {"sequences", NVFP4} < row.keys() <= {"sequences", NVFP4, FP8, BF16}
            assert all(type(value) in (int, float) and value > 0 for value in row.values())


def test_of_several_measurements_that_of_the_same_device_counts_then_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{**MEASURED[0], "device": name, "vllm": version} for name, version in
               [("NVIDIA H200", "1"), ("NVIDIA H100 80GB HBM3", "2"), ("NVIDIA GH200", "3")]]  # fmt: skip
    monkeypatch.setattr(compute_format, "winners", lambda: tuple(entries))
    found = {
        name: compute_format.measured(name, "9.0") for name in ("NVIDIA-H200", "NVIDIA-H100-80GB-HBM3", "H800", "")
    }
    assert [entry and entry["vllm"] for entry in found.values()] == ["1", "2", "3", "3"]
    assert compute_format.measured("NVIDIA H200", "8.9") is None


@pytest.mark.parametrize(("gib", "form", "holds"), [
    (139.8, BF16, True), (139.8, FP8, True), (79.18, BF16, True), (31.36, BF16, False), (22.0, BF16, False),
    (14.56, BF16, False), (14.56, FP8, False),
])  # fmt: skip
def test_a_gpu_must_hold_as_many_sequences_as_with_nvfp4(gib: float, form: str, holds: bool) -> None:
    lacks = compute_format.gpu_lacks(FALCON_H1R_7B, PROFILE, ASK, form, gib)
    assert (lacks is None) is holds
    assert lacks is None or f"{gib:.1f} GiB" in lacks


def test_a_volume_keeps_a_tenth_free() -> None:
    gib = 1 << 30
    for form, need in ((BF16, 14.13), (FP8, 8.65)):
        for free, total, enough in ((need + 1.7, 16, True), (need + 1.5, 16, False), (need + 50, 1000, False)):
            lacks = compute_format.disk_lacks(FALCON_H1R_7B, ASK, form, free * gib, total * gib)
            assert (lacks is None) is enough, (form, free, total)
            assert lacks is None or f"it needs {need:.1f} GiB" in lacks


def test_every_kind_of_nvfp4_has_its_formats() -> None:
    for weights in FORMATS:
        for form in (NVFP4, FP8, BF16):
            found = compute_format.expanded_weights(weights, form, FALCON_H1R_7B)
            assert found in FORMATS
            assert form == NVFP4 or weights.startswith("nvfp4") or found == weights
    assert compute_format.expanded_weights("nvfp4", FP8, FALCON_H1R_7B) == "fp8-without-in-proj"


def test_the_measurements_are_a_file_that_a_person_can_add_to() -> None:
    text = Path(compute_format.__file__).with_name("winners.json").read_text()
    content: list[dict[str, Any]] = json.loads(text)
    assert tuple(content) == compute_format.winners()
    assert all(len(line) <= 400 for line in text.splitlines())
