"""What a version of vLLM makes of a checkpoint, and the repair of its metadata, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from falcon_engine import profiles, repair, safetensors
from falcon_engine.finding import REFUSED, Finding, curable, refuses
from falcon_engine.findings import Loader, check
from falcon_engine.profiles import Profile
from falcon_engine.repair import RepairError
from falcon_engine.safetensors import Files

# Exit statuses.
LOADS, REPAIRABLE, UNUSABLE = 0, 1, 3
VERDICTS = {LOADS: "loads", REPAIRABLE: "repairable", UNUSABLE: "unusable"}


@dataclass(frozen=True)
class Question:
    """A checkpoint and the engine that is to load it. `engine_version` None: the newest that is known."""

    directory: Path
    engine_version: str | None = None
    loader: str = "stock"
    device: str = "cuda"


@dataclass(frozen=True)
class Answer:
    """What was found, and for which version."""

    files: Files
    profile: Profile
    exact: bool
    loader: Loader
    findings: tuple[Finding, ...]

    @property
    def status(self) -> int:
        """The exit status of `check-model`."""
        if not refuses(self.findings):
            return LOADS
        return REPAIRABLE if curable(self.findings) else UNUSABLE


def answer(question: Question) -> Answer:
    """Read the checkpoint's metadata and judge it. Raises ValueError with a sentence where there is no directory."""
    try:
        there = question.directory.is_dir()
    except OSError as e:
        raise ValueError(f"{question.directory} cannot be looked into: {e.strerror or e}.") from None
    if not there:
        raise ValueError(f"{question.directory} is no directory: name that of a checkpoint.")
    version = question.engine_version
    profile, exact = profiles.select(version) if version else (profiles.load(profiles.VERSIONS[-1]), True)
    loader = Loader.of(question.loader, profile, question.device)
    files = safetensors.read(question.directory)
    findings = check(files, profile, loader)
    if changed := files.changed():
        raise ValueError(f"{question.directory / changed} changed while it was read: ask again once it is whole.")
    return Answer(files, profile, exact, loader, findings)


def as_text(found: Answer) -> str:
    """A line for each finding, the verdict last."""
    lines = [f"{'refused' if f.severity == REFUSED else 'warning'}  {f}" for f in found.findings]
    near = "" if found.exact else " (the nearest that is known)"
    verdict = {
        LOADS: f"vLLM {found.profile.version}{near} loads it.",
        REPAIRABLE: f"vLLM {found.profile.version}{near} refuses it, and repair-model makes it load.",
        UNUSABLE: f"vLLM {found.profile.version}{near} does not load it, and new metadata alone does not help.",
    }[found.status]
    return "\n".join([*lines, verdict]) + "\n"


def as_json(found: Answer) -> str:
    """The same as one JSON object."""
    return json.dumps(
        {
            "directory": str(found.files.directory),
            "engineVersion": found.profile.version,
            "exact": found.exact,
            "verdict": VERDICTS[found.status],
            "tensors": len(found.files.tensors),
            "bytesRead": found.files.bytes_read,
            "findings": [asdict(f) for f in found.findings],
        }
    )


def mend(found: Answer, out: Path) -> str:
    """Make `out` the checkpoint with metadata that the engine takes; says in a sentence what was done.

    Raises ValueError with a sentence, and leaves nothing behind, where that is not possible.
    """
    if found.status == UNUSABLE:
        first = next(f for f in found.findings if f.severity == REFUSED and not f.repairable)
        raise ValueError(f"New metadata does not help. {first}")
    try:
        plan = repair.plan(found.files, found.findings, found.profile, found.loader)
        made = repair.overlay(found.files, plan, found.findings, out)
    except RepairError as e:
        raise ValueError(str(e)) from None
    changes = sorted([*plan.written, *(f"no {name}" for name in plan.dropped)])
    what = f"new {', '.join(changes)}" if changes else "nothing to repair"
    return f"{out}: {what}; the rest are links to {found.files.directory.resolve()}{'' if made else ', as it was'}."
