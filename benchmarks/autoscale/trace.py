"""Requests to play: read from a CSV with `TIMESTAMP,ContextTokens,GeneratedTokens`, and scaled."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# Copies of a request come so many seconds earlier or later at most.
_JITTER = 2.0
# More is taken for a mistake, such as timestamps in milliseconds, and would not end.
_MOST_DAYS = 31
_MOST_REQUESTS = 20_000_000


class TraceError(ValueError):
    """A trace that cannot be read, in a sentence that names file, line and value."""


@dataclass(frozen=True)
class Load:
    """Requests by their time of arrival in seconds, the first at 0; prompts and answers in tokens."""

    at: list[float]
    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.at)

    @property
    def end(self) -> float:
        """When the last request comes; at least a second."""
        return max(self.at[-1], 1.0)

    @classmethod
    def of(cls, rows: list[tuple[float, int, int]]) -> Load:
        """From rows in any order, which is kept at the same time; an answer has at least one token."""
        rows = sorted(rows, key=itemgetter(0))
        begin = rows[0][0]
        return cls([at - begin for at, _, _ in rows], [p for _, p, _ in rows], [max(a, 1) for _, _, a in rows])


def read(path: Path) -> Load:
    """All requests of a trace. Raises TraceError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = _rows(path, file)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: is not text in UTF-8; a CSV with the columns {', '.join(COLUMNS)} is.") from None
    except csv.Error as error:
        raise TraceError(f"{path}: is not CSV: {error}.") from None
    days = (max(rows)[0] - min(rows)[0]) / 86400
    if days > _MOST_DAYS:
        raise TraceError(
            f"{path}: from its first to its last TIMESTAMP there are {days:.3g} days, and {_MOST_DAYS} are the most; "
            "a plain number is one of seconds."
        )
    return Load.of(rows)


def _rows(path: Path, lines: Iterable[str]) -> list[tuple[float, int, int]]:
    reader = csv.reader(lines)
    header = next(reader, [])
    names = [_plain(name) for name in header]
    missing = [column for column in COLUMNS if _plain(column) not in names]
    if missing:
        found = ",".join(header) or "nothing"
        raise TraceError(f"{path}, line 1: the column {missing[0]} is missing; the first line is {found!r}.")
    places = [names.index(_plain(column)) for column in COLUMNS]
    rows: list[tuple[float, int, int]] = []
    dated: bool | None = None
    for row in reader:
        if not any(field.strip() for field in row):
            continue
        where = f"{path}, line {reader.line_num}"
        if len(row) <= max(places):
            raise TraceError(f"{where}: {','.join(row)!r} has {len(row)} fields, and {max(places) + 1} are needed.")
        at, prompt, answer = (row[place].strip() for place in places)
        seconds, is_date = _time(at, where)
        if dated is not None and dated != is_date:
            kinds = ("a date", "numbers") if is_date else ("a number", "dates")
            raise TraceError(f"{where}: TIMESTAMP {at!r} is {kinds[0]}, and those before are {kinds[1]}.")
        dated = is_date
        rows.append((seconds, _tokens(prompt, COLUMNS[1], where), _tokens(answer, COLUMNS[2], where)))
    if not rows:
        raise TraceError(f"{path}: has no requests, only a header.")
    return rows


def _plain(name: str) -> str:
    return "".join(name.split()).replace("_", "").lower()


def _time(value: str, where: str) -> tuple[float, bool]:
    """Seconds, and whether it was a date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            raise TraceError(
                f"{where}: TIMESTAMP {value!r} is neither a date with time, such as 2023-11-16 18:15:46.6805900, "
                "nor a number of seconds."
            ) from None
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp(), True
    if not math.isfinite(seconds):
        raise TraceError(f"{where}: TIMESTAMP {value!r} is not a finite number of seconds.")
    return seconds, False


def _tokens(value: str, column: str, where: str) -> int:
    try:
        count = float(value)
    except ValueError:
        count = math.nan
    if not 0 <= count <= 1e9 or count != int(count):
        raise TraceError(f"{where}: {column} {value!r} is not a number of tokens.")
    return int(count)


def scaled(load: Load, scale: float, seed: int) -> Load:
    """Each request `scale` times on average, the copies a little apart. Raises TraceError for none or too many."""
    if len(load) * scale > _MOST_REQUESTS:
        raise TraceError(
            f"--scale {scale:g} makes {len(load) * scale:.3g} requests of {len(load)}; {_MOST_REQUESTS:,} are the most."
        )
    chance = random.Random(seed)
    whole, rest = int(scale), scale - int(scale)
    rows: list[tuple[float, int, int]] = []
    for at, prompt, answer in zip(load.at, load.prompt, load.answer, strict=True):
        for copy in range(whole + (rest > 0 and chance.random() < rest)):
            moved = abs(at + chance.uniform(-_JITTER, _JITTER)) if copy else at
            rows.append((moved, prompt, answer))
    if not rows:
        raise TraceError(f"--scale {scale:g} leaves none of {len(load)} requests; a larger one does.")
    return Load.of(rows)
