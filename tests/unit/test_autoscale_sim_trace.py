"""Traces: what is read, what is refused and how, and copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.autoscale.shapes import SHAPES
from benchmarks.autoscale.trace import Load, TraceError, read, scaled


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.6805900", "2023-11-16 18:15:48.1805900"),
        (" Timestamp , context tokens,GENERATED_TOKENS ", "2023-11-16T18:15:46.5Z", "2023-11-16T20:15:48+02:00"),
        ("\ufeffTIMESTAMP,ContextTokens,GeneratedTokens", "10", "11.5"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens", "1e3", "1001.5"),
    ],
)
def test_times_are_seconds_from_the_first_request_on(tmp_path: Path, header: str, first: str, second: str) -> None:
    load = read(written(tmp_path, f"{header}\n{first},374,44\n\n{second},7,0\n"))
    assert load.at == pytest.approx([0.0, 1.5])
    assert load.prompt == [374, 7]
    assert load.answer == [44, 1]  # an answer has a token at least


def test_rows_are_put_in_order_and_other_columns_left_out(tmp_path: Path) -> None:
    load = read(written(tmp_path, "GeneratedTokens,Model,TIMESTAMP,ContextTokens\n1,x,5,10\n2,x,3,20\n3,x,5,30\n"))
    assert (load.at, load.prompt, load.answer) == ([0.0, 2.0, 2.0], [20, 10, 30], [2, 1, 3])


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the column TIMESTAMP is missing; the first line is 'nothing'"),
        (
            "TIMESTAMP,Tokens\n1,2\n",
            "line 1: the column ContextTokens is missing; the first line is 'TIMESTAMP,Tokens'",
        ),
        (HEAD, "has no requests"),
        (HEAD + "1,2,3\nyesterday,2,3\n", "line 3: TIMESTAMP 'yesterday' is neither a date"),
        (HEAD + "nan,2,3\n", "line 2: TIMESTAMP 'nan' is not a finite number"),
        (HEAD + "1,2.5,3\n", "line 2: ContextTokens '2.5' is not a number of tokens"),
        (HEAD + "1,2,-3\n", "line 2: GeneratedTokens '-3' is not"),
        (HEAD + "1,2,nan\n", "line 2: GeneratedTokens 'nan' is not"),
        (HEAD + "1,,3\n", "line 2: ContextTokens '' is not"),
        (HEAD + "1,2,1e308\n", "line 2: GeneratedTokens '1e308' is not"),
        (HEAD + "1,2\n", "line 2: '1,2' has 2 fields, and 3 are needed"),
        (HEAD + "1,2,3\n2023-11-16,2,3\n", "line 3: TIMESTAMP '2023-11-16' is a date, and those before are numbers"),
        (HEAD + "2023-11-16,2,3\n1,2,3\n", "line 3: TIMESTAMP '1' is a number, and those before are dates"),
        (HEAD + "1e12,2,3\n0,2,3\n", "there are 1.16e+07 days, and 31 are the most; a plain number is one of seconds"),
        (HEAD + "1e308,2,3\n-1e308,2,3\n", "there are inf days, and 31 are the most"),
    ],
)
def test_a_bad_row_is_told_by_file_line_and_value(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_what_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.csv: cannot be read: No such file"):
        read(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="is not text in UTF-8"):
        read(tmp_path / "binary.csv")


def plain(count: int) -> Load:
    return Load.of([(float(i), i, i + 1) for i in range(count)])


def test_copies_come_close_to_the_original_and_as_many_as_asked_for() -> None:
    load = plain(2000)
    found = scaled(load, 2.5, seed=3)
    assert len(found) == pytest.approx(5000, rel=0.02)
    assert found.at == sorted(found.at)
    begin = min(at - prompt for at, prompt in zip(found.at, found.prompt, strict=True))
    shifts = [at - prompt - begin for at, prompt in zip(found.at, found.prompt, strict=True)]
    assert max(shifts) <= 4.0 + 1e-6
    assert found == scaled(load, 2.5, seed=3)
    assert found != scaled(load, 2.5, seed=4)


def test_a_scale_of_one_changes_nothing_and_a_small_one_leaves_some_out() -> None:
    load = plain(1000)
    assert scaled(load, 1.0, seed=1) == load
    assert 60 < len(scaled(load, 0.1, seed=1)) < 140
    with pytest.raises(TraceError, match=r"--scale 1e\+09 makes 1e\+12 requests of 1000; 20,000,000 are the most"):
        scaled(load, 1e9, 1)
    with pytest.raises(TraceError, match="--scale 1e-06 leaves none of 10 requests"):
        scaled(plain(10), 1e-6, seed=1)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_made_traces_are_the_same_by_seed(name: str) -> None:
    load = SHAPES[name](1)
    assert load == SHAPES[name](1)
    assert load.at != SHAPES[name](2).at
    assert load.at == sorted(load.at)
    assert min(load.answer) >= 1


def test_the_step_is_eightfold_and_answers_of_reasoning_are_long() -> None:
    step = SHAPES["step"](1)
    before = sum(at < 1200 for at in step.at) / 1200
    within = sum(1200 <= at < 2700 for at in step.at) / 1500
    assert within / before == pytest.approx(8, rel=0.1)
    reasoning = SHAPES["reasoning"](1)
    assert sum(reasoning.answer) / len(reasoning) == pytest.approx(3000, rel=0.1)


def test_sparse_traffic_is_almost_nothing_between_its_peaks() -> None:
    at = SHAPES["sparse"](1).at
    peaks = [sum(2400 * peak <= time < 2400 * peak + 200 for time in at) for peak in range(3)]
    assert peaks == pytest.approx([5000] * 3, rel=0.06)
    assert len(at) - sum(peaks) == pytest.approx(3300, rel=0.1)
