"""Brings the weights into the format that the GPU is to compute with: from the cache, or by `falcon_weights.expand`."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_engine import ask, compute_format, expanded, gpus, locate, shape, tensors
from falcon_engine.checkpoint import Checkpoint
from falcon_engine.child import Child
from falcon_engine.compute_format import AUTO, NVFP4, Choice, Facts
from falcon_engine.fit import visible_gib
from falcon_engine.gpus import Gpu
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis, Refusal

# How long an expansion may take to remove what it began.
_STOP_SECONDS = 20.0
# What `falcon_weights.expand` ends with, and the reason that it stands for.
_REASONS = {3: "DiskFull", 4: "PermissionDenied"}


class Stopped(Exception):
    """The launcher was asked to stop while the weights were expanded."""


@dataclass(frozen=True)
class Outcome:
    """What the engine is to load, and why in this format: None for a checkpoint that is not NVFP4.

    `seconds` is what making it took, 0 where it was in the cache.
    """

    checkpoint: Checkpoint
    choice: Choice | None = None
    seconds: float | None = None

    def described(self) -> dict[str, str | float | None] | None:
        """For the report."""
        if self.choice is None:
            return None
        return {"format": self.choice.format, "why": self.choice.why, "seconds": self.seconds}


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where expansions are kept: the cache volume in a pod, else the user's cache."""
    if given := environ.get("FALCON_CACHE_DIR"):
        return Path(given)
    home = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '/tmp'}/.cache"
    return Path(home, "falcon")


def prepare(
    found: Checkpoint,
    intent: Intent,
    profile: Profile,
    version: str | None,
    seen: Sequence[Gpu],
    engine: locate.Engine,
    log: Callable[[str], None],
) -> Outcome:
    """The checkpoint in the format to compute with.

    Raises `Refusal` where the resource names a format that cannot be had, `Stopped` after a stop signal. What `Auto`
    would take and cannot have is a warning, and the checkpoint stays as it is.
    """
    if not found.nvfp4:
        if intent.compute_format not in (AUTO, NVFP4):
            log(f"warning: computeFormat {intent.compute_format} has no effect: the checkpoint is not NVFP4")
        return Outcome(found)
    cache = cache_directory(os.environ)
    source = Path(found.path)
    room = _Room(cache, source, intent, profile, seen)
    choice = compute_format.choose(intent.compute_format, _facts(intent, version, seen), room.lacks)
    log(f"weights are computed in {choice.format}: {choice.why}")
    if choice.format == NVFP4:
        return Outcome(found, choice)
    began = time.monotonic()
    try:
        out = room.place(choice.format.lower())
        if not room.kept(choice.format.lower()):
            _run(source, out, choice.format.lower(), intent, engine, log)
            made = round(time.monotonic() - began, 2)
        else:
            made = 0.0
            log(f"they are in {out} from an earlier start")
    except (OSError, _Failed) as e:
        return _without(e, found, choice, log)
    loss = _loss(out)
    why = f"{choice.why} The largest relative error against NVFP4 is {loss:.2g}." if loss is not None else choice.why
    return Outcome(Checkpoint(str(out), nvfp4=False), Choice(choice.format, why, choice.asked), made)


def _facts(intent: Intent, version: str | None, seen: Sequence[Gpu]) -> Facts:
    first = seen[0] if seen and len({gpu.capability for gpu in seen}) == 1 else None
    return Facts(
        device=intent.device,
        product=first.name if first else None,
        capability=first.capability if first else None,
        version=version,
        sequences=intent.max_num_seqs,
    )


class _Room:
    """What a format needs here, on the disk and on the GPU, and whether that is there."""

    def __init__(self, cache: Path, source: Path, intent: Intent, profile: Profile, seen: Sequence[Gpu]) -> None:
        self._cache, self._source, self._intent, self._profile = cache, source, intent, profile
        self._mib = gpus.least_mib(seen)
        self._fingerprint: str | None = None
        try:
            self._shape = shape.read(source)
        except shape.ShapeError:
            self._shape = shape.FALCON_H1R_7B

    def place(self, form: str) -> Path:
        """Where the expansion is, or is to be. Raises `OSError`."""
        if self._fingerprint is None:
            self._fingerprint = tensors.fingerprint(self._source)
        return expanded.place(self._cache, self._fingerprint, form)

    def kept(self, form: str) -> bool:
        """Whether it is there, whole. Raises `OSError` where the source cannot be read."""
        out = self.place(form)
        return expanded.judge(out, self._source, self._fingerprint or "", form).whole

    def lacks(self, form: str) -> str | None:
        """Why a format cannot be had, as the end of a sentence."""
        if problem := self._gpu_lacks(form):
            return problem
        try:
            if self.kept(form.lower()):
                return None
            self._cache.mkdir(parents=True, exist_ok=True)
            disk = shutil.disk_usage(self._cache)
        except (OSError, ValueError) as e:
            return f"{self._cache} cannot be used ({getattr(e, 'strerror', None) or e})"
        if not os.access(self._cache, os.W_OK | os.X_OK):
            return f"user {os.getuid()} may not write to {self._cache}"
        wanted = ask.from_intent(self._intent, self._profile, self._shape.weights)
        lacks = compute_format.disk_lacks(self._shape, wanted, form, disk.free, disk.total)
        return f"{self._cache} {lacks}" if lacks else None

    def _gpu_lacks(self, form: str) -> str | None:
        if self._mib is None or "blockRules" not in self._profile.facts:
            return None
        visible = visible_gib(self._mib, mig="/mig-" in (self._intent.gpu_resource or ""))
        wanted = ask.from_intent(self._intent, self._profile, self._shape.weights)
        return compute_format.gpu_lacks(self._shape, self._profile, wanted, form, visible)


class _Failed(Exception):
    """The expansion ended with a sentence, and a reason of the resource's."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def _run(source: Path, out: Path, form: str, intent: Intent, engine: locate.Engine, log: Callable[[str], None]) -> None:
    """Expand in a process of its own: torch and what it takes of the GPU are gone with it."""
    command = [*locate.interpreter(engine), "-m", "falcon_weights.expand", str(source), str(out), "--format", form]
    if intent.device == "cpu":
        command += ["--device", "cpu"]
    # The packages are where this one is, which may be inside the launcher's archive.
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
    child = Child(command, lambda _: None, {"PYTHONPATH": path})
    ended = child.wait()
    if isinstance(ended, signal.Signals):
        log(f"{ended.name}: ending the expansion")
        child.send(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while isinstance(child.wait(max(0.0, deadline - time.monotonic())), signal.Signals):
            continue
        child.finish()
        raise Stopped
    child.finish()
    if ended != 0:
        said = [line.removeprefix("falcon: ") for line in child.lines if line.strip()]
        last = said[-1] if said else "it said nothing"
        how = f"signal {-ended}" if ended is not None and ended < 0 else f"exit code {ended}"
        raise _Failed(
            f"The expansion of the weights to {form.upper()} failed ({how}): {last}",
            _REASONS.get(ended or 0, "CheckpointUnusable"),
        )


def _without(error: Exception, found: Checkpoint, choice: Choice, log: Callable[[str], None]) -> Outcome:
    """NVFP4 after all, or a refusal where the resource names the format."""
    sentence = str(error) if isinstance(error, _Failed) else f"The weights cannot be expanded: {error}."
    if choice.asked:
        reason = error.reason if isinstance(error, _Failed) else "CheckpointUnusable"
        hint = "Set spec.engine.computeFormat to Auto or NVFP4, or give spec.cache what it lacks."
        raise Refusal(Diagnosis(reason, _cut(sentence), hint, CONFIGURATION_EXIT)) from None
    log(f"warning: {sentence} Weights are computed in {NVFP4} instead")
    return Outcome(found, Choice(NVFP4, f"{choice.why} But: {_cut(sentence)}"))


def _loss(out: Path) -> float | None:
    """The largest relative error of a kind of layer, as the expansion measured it."""
    try:
        kinds = json.loads((out / tensors.REPORT).read_text())["loss"].values()
        return max(float(kind["relativeFrobenius"]) for kind in kinds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _cut(sentence: str) -> str:
    return re.sub(r"\s+", " ", sentence)[:600]
