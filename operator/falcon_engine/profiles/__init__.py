"""Engine facts by vLLM version. A new version is a new file here, made by `tools/extract_flags.py` and by measuring."""

import functools
import json
import pkgutil
import re
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from falcon_engine.profiles import remarks, schema
from falcon_engine.profiles.schema import ProfileError


@dataclass(frozen=True)
class Flag:
    """One flag of `vllm serve`.

    `kind`: `value` takes one value, `values` one or more, `optional` none or one, `flag` none, `switch` none and has a
    `--no-` form. `type` is the value's where it is no text: `int`, `float` or `json`.
    """

    name: str
    kind: str
    type: str | None = None
    choices: tuple[Any, ...] = ()
    default: Any = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Profile:
    """What is known of one vLLM version. It is loaded once, so that it equals itself alone and can be a key.

    `facts` are as in the file, `{"value": ..., "source": "..."}` by name; `fact` gives a value. `flags_complete` says
    whether `flags` are all that the version has, so that any other is wrong.
    """

    file: str
    version: str
    flags_complete: bool
    flags_source: str
    facts: dict[str, Any]
    flags: dict[str, Flag]
    _names: dict[str, Flag] = field(repr=False)

    def has(self, name: str) -> bool:
        """Whether this version has the flag of that name; an unknown version: whether it is likely to."""
        return name in self.flags

    def fact(self, name: str) -> Any:
        """The value of a fact. Raises `ProfileError` where the file does not have it."""
        if name not in self.facts:
            raise ProfileError(f"{self.file}: there is no fact {name}; known are {', '.join(self.facts)}")
        return self.facts[name]["value"]

    def remarks(self, capability: str | None, version: str | None = None) -> list[str]:
        """Sentences on what this version is known to do badly on a GPU, and on its published vulnerabilities.

        `capability` is the GPU's, such as `9.0`; None where it is not known: what concerns some GPUs then says which.
        `version` is the engine's own where it is known: what it has fixed is left out. Raises `ValueError` where
        `capability` is no capability.
        """
        known_bad, advisories = self.fact("knownBad"), self.fact("advisories")
        return remarks.sentences(known_bad, advisories, capability, version or self.version)

    def names(self) -> list[str]:
        """Every spelling that the version documents, aliases and `--no-` forms included."""
        return sorted(self._names)

    def lookup(self, argument: str) -> Flag | None:
        """The flag that an argument names, as vLLM reads it: `--x=1`, `--no-x`, `--x_y`, `--x.key`, `-O3`, `-tp`."""
        name, _, _ = argument.partition("=")
        name, _, _ = name.partition(".")
        if name.startswith("--"):
            return self._names.get("--" + name[2:].replace("_", "-"))
        if re.fullmatch(r"-O\d?", name):
            return self._names.get("--optimization-level") or self._names.get("--compilation-config")
        return self._names.get(name)


def parse(version: str | None) -> tuple[int, int] | None:
    """Major and minor of versions such as `0.32.0+cpu`, `v0.33.0rc1` or `0.13`; None where there are none."""
    match = re.match(r"v?(\d+)\.(\d+)(?![\d])", version or "")
    return (int(match[1]), int(match[2])) if match else None


# The files beside this one, oldest first; also out of a zip.
VERSIONS = tuple(
    sorted(
        (entry.name.removesuffix(".json") for entry in files(__name__).iterdir() if entry.name.endswith(".json")),
        key=lambda name: parse(name) or (0, 0),
    )
)


@functools.lru_cache(maxsize=256)
def select(version: str | None) -> tuple[Profile, bool]:
    """The profile to use for a version, and whether it is that version's own.

    An unknown version gets the nearest older profile, or the oldest, with the flags alone that are likely to be there:
    those that the known versions on both sides have, or the last two where none is newer, or all where no version is
    given.
    """
    wanted = parse(version)
    older = [v for v in VERSIONS if wanted and (parse(v) or wanted) <= wanted]
    chosen = older[-1] if older else VERSIONS[0]
    if parse(chosen) == wanted:
        return load(chosen), True
    if wanted is None:
        return _shared(VERSIONS), False
    newer = VERSIONS[len(older) : len(older) + 1]
    return _shared((chosen, *(newer or older[-2:]))), False


@functools.cache
def _shared(names: tuple[str, ...]) -> Profile:
    """The first profile with the flags alone that all of them have."""
    first, *others = map(load, names)
    flags = {name: flag for name, flag in first.flags.items() if all(o.has(name) for o in others)}
    return replace(first, flags_complete=False, flags=flags)


@functools.cache
def load(name: str) -> Profile:
    """The profile of one file. Raises `ProfileError` where the file is not as it must be."""
    file = f"{name}.json"
    try:
        data = pkgutil.get_data(__name__, file)  # also out of a zip
    except OSError:
        data = None
    if data is None:
        raise ProfileError(f"{file}: there is no such profile; known are {', '.join(VERSIONS)}")
    return read(file, data)


def read(file: str, data: bytes) -> Profile:
    """A profile of a file's bytes. Raises `ProfileError` with the file's name, the key and what is known."""
    try:
        raw = json.loads(data, object_pairs_hook=_once)
    except ValueError as error:
        raise ProfileError(f"{file}: {error}") from None
    schema.check(file, raw)
    flags = {flag: _flag(flag, content) for flag, content in raw["flags"].items()}
    spellings: dict[str, Flag] = {}
    for flag in flags.values():
        for spelling in (flag.name, *flag.also):
            spellings[spelling] = flag
            if flag.kind == "switch" and spelling.startswith("--"):
                spellings["--no-" + spelling[2:]] = flag
    return Profile(file, raw["version"], raw["flagsComplete"], raw["flagsSource"], raw["facts"], flags, spellings)


def _flag(name: str, content: dict[str, Any]) -> Flag:
    choices, also = tuple(content.get("choices", ())), tuple(content.get("also", ()))
    return Flag(name, content["kind"], content.get("type"), choices, content.get("default"), also)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys stand in it once: of two, one would be dropped in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} stands in one object twice")
    return content
