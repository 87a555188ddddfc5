"""Engine facts by vLLM version. A new version is a new file here, made by `tools/extract_flags.py` and by measuring."""

import functools
import json
import pkgutil
import re
from dataclasses import dataclass, field
from typing import Any

# The files beside this one, oldest first.
VERSIONS = ("0.13", "0.26", "0.32", "0.33")


@dataclass(frozen=True)
class Flag:
    """One flag of `vllm serve`.

    `kind`: `value` takes one value, `values` one or more, `optional` none or one, `flag` none, `switch` none and has a
    `--no-` form.
    """

    name: str
    kind: str
    choices: tuple[Any, ...] = ()
    default: Any = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What is known of one vLLM version."""

    version: str
    flags_complete: bool
    flags_source: str
    facts: dict[str, Any]
    flags: dict[str, Flag]
    _names: dict[str, Flag] = field(repr=False)

    def has(self, name: str) -> bool:
        """Whether this version has the flag of that name."""
        return name in self.flags

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


def select(version: str | None) -> tuple[Profile, bool]:
    """The profile to use for a version, and whether it is that version's own.

    An unknown version gets the nearest older profile, or the oldest: it renders the fewest flags.
    """
    wanted = parse(version)
    older = [v for v in VERSIONS if wanted and parse(v) <= wanted]  # type: ignore[operator]
    chosen = older[-1] if older else VERSIONS[0]
    return load(chosen), parse(chosen) == wanted


@functools.cache
def load(name: str) -> Profile:
    """The profile of one file."""
    data = pkgutil.get_data(__name__, f"{name}.json")  # also out of a zip
    if data is None:
        raise FileNotFoundError(f"no profile {name}")
    raw = json.loads(data)
    flags = {
        flag: Flag(flag, f["kind"], tuple(f.get("choices", ())), f.get("default"), tuple(f.get("also", ())))
        for flag, f in raw["flags"].items()
    }
    spellings: dict[str, Flag] = {}
    for flag in flags.values():
        for spelling in (flag.name, *flag.also):
            spellings[spelling] = flag
            if flag.kind == "switch" and spelling.startswith("--"):
                spellings["--no-" + spelling[2:]] = flag
    return Profile(raw["version"], raw["flagsComplete"], raw["flagsSource"], raw["facts"], flags, spellings)
