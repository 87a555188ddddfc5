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
    for bad in _open(known_bad, version):
        sentence = f"{bad['what']} ({bad['id']}; {_way_out(bad)})."
        if bad["when"] is None or (capability and capabilities.within(capability, bad["when"])):
            said.append(sentence)
        elif capability is None:
            said.append(f"On GPUs of compute capability {capabilities.words(bad['when'])}: {sentence}")
    if holes := [f"{a['id']} ({a['what']}; {_way_out(a)})" for a in _open(advisories, version)]:
        said.append(f"Known vulnerabilities: {', '.join(holes)}.")
    return said


def _open(remarks: Sequence[Mapping[str, Any]], version: str | None) -> list[Mapping[str, Any]]:
    """Those that the version has not fixed, as far as is known."""
    have = _numbers(version)
    return [r for r in remarks if not (have and (fix := _numbers(r["fixedIn"])) and have >= fix)]


def _way_out(remark: Mapping[str, Any]) -> str:
    return f"fixed in {remark['fixedIn']}" if remark["fixedIn"] else "no fixed version is known"


def _numbers(version: str | None) -> tuple[int, int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
