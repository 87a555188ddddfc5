"""What users of a version should know: where it is known to do badly, and its published vulnerabilities."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from falcon_engine.profiles import capability as capabilities


def sentences(
    known_bad: Sequence[Mapping[str, Any]],
    advisories: Sequence[Mapping[str, Any]],
    capability: str | None,
    version: str | None,
) -> list[str]:
    """One sentence a known failure that concerns the GPU, and one for all advisories that concern the version."""
    said = []
    for bad in known_bad:
        if bad["when"] is None or (capability and capabilities.within(capability, bad["when"])):
            said.append(f"{bad['what']} ({bad['id']}).")
        elif capability is None:
            said.append(
                f"On GPUs of compute capability {capabilities.words(bad['when'])}: {bad['what']} ({bad['id']})."
            )
    if open_ones := [a for a in advisories if not _fixed(a["fixedIn"], version)]:
        listed = ", ".join(f"{a['id']} ({a['what']}; {_way_out(a['fixedIn'])})" for a in open_ones)
        said.append(f"Known vulnerabilities: {listed}.")
    return said


def _way_out(fixed_in: str | None) -> str:
    return f"fixed in {fixed_in}" if fixed_in else "no fixed version is known"


def _fixed(fixed_in: str | None, version: str | None) -> bool:
    fix, have = _numbers(fixed_in), _numbers(version)
    return bool(fix and have and have >= fix)


def _numbers(version: str | None) -> tuple[int, int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
