"""Runs the engine to its end, and again where its failure passes; 0 only if somebody asked for the end."""

import shlex
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

from falcon_engine import child, drain, flags, memory, sequences, termination
from falcon_engine.child import Child
from falcon_engine.diagnose import diagnose
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile
from falcon_engine.report import Report
from falcon_engine.signatures import DEATH_EXIT, START_EXIT, TRANSIENT_REASONS, TRANSIENT_SECONDS, Diagnosis
from falcon_engine.watch import Watch

# From a failure that passes to the next start; the last one again and again, for `TRANSIENT_SECONDS` in all.
PAUSES = (5.0, 10.0, 20.0, 30.0)


@dataclass(frozen=True)
class Prepared:
    """What an engine is started with. `model` is a directory, or a repository of a hub.

    `asked` is how many sequences the resource wants; the intent has as many as the engine gets. `environ` comes on top
    of the container's own.
    """

    intent: Intent
    asked: int
    program: tuple[str, ...]
    profile: Profile
    version: str | None
    model: str
    nvfp4: bool
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """The engine's command line."""
        return [*self.program, *flags.argv(self.intent, self.profile, self.model, nvfp4=self.nvfp4)]


class _Interrupted(Exception):
    """The engine ended while it was waited for, or was told to stop again."""


class Attendant:
    """Starts, watches and stops the engine."""

    def __init__(self, report: Report, log: Callable[[str], None]) -> None:
        self._report = report
        self._log = log
        self._pauses = chain(PAUSES, repeat(PAUSES[-1]))
        self._lowered = False

    def attend(self, prepared: Prepared) -> int:
        """Run the engine, and again after failures that pass. Returns the exit code."""
        while True:
            self._log(f"starting {shlex.join(prepared.command)}")
            ended = self._run(prepared)
            if isinstance(ended, int):
                return ended
            diagnosis, lines = ended
            fewer = None if self._lowered else sequences.learn(prepared.intent, prepared.asked, lines)
            if fewer and diagnosis.reason == "SequencesExceedMemory":
                self._lowered = True
                self._log(f"{fewer.why} Starting it once more, with {fewer.given}")
                self._report.retry(diagnosis.reason, diagnosis.message)
                self._report.put(clamped=fewer, max_num_seqs=fewer.given)
                prepared = replace(prepared, intent=sequences.lowered(prepared.intent, fewer))
            elif not self._passes(diagnosis):
                return refuse(diagnosis, self._log)
            elif self._wait(diagnosis):
                return 0

    def _run(self, prepared: Prepared) -> int | tuple[Diagnosis, list[str]]:
        """One start of the engine: an exit code where that was it, else why it ended and its last lines."""
        intent, version = prepared.intent, prepared.version
        kills_before = memory.kills()
        watch = Watch(intent, self._report, self._log)
        try:
            engine = Child(prepared.command, watch.feed, prepared.environ)
        except OSError as e:
            message = f"{prepared.program[0]} cannot be started: {e}."
            return Diagnosis("EngineStartFailed", message, "Check the image.", START_EXIT, version), []
        watch.start()
        ended = engine.wait()
        watch.end()
        stopped = isinstance(ended, signal.Signals)
        if isinstance(ended, signal.Signals):
            if not prepared.profile.has("--shutdown-timeout") and watch.served and not drain.seconds_drained():
                ended = self._drain(engine, intent, ended)
            self._stop(engine, intent, ended)
        engine.finish()
        if stopped:
            if told := interrupted(watch.served, self._report, version, engine.lines):
                self._log(f"{told.reason}: {told.message}")
                termination.write(told)
            self._log("stopped as asked")
            return 0
        return diagnose(
            ended if isinstance(ended, int) else START_EXIT,
            engine.lines,
            served=watch.served,
            engine_version=version,
            memory_kills=memory.kills() - kills_before,
        ), engine.lines

    def _passes(self, diagnosis: Diagnosis) -> bool:
        """Whether to start the engine again after this."""
        started = diagnosis.exit_code == DEATH_EXIT
        return not started and diagnosis.reason in TRANSIENT_REASONS and self._report.seconds() < TRANSIENT_SECONDS

    def _wait(self, diagnosis: Diagnosis) -> bool:
        """Wait before the next start; true where somebody asked for the end meanwhile."""
        left = TRANSIENT_SECONDS - self._report.seconds()
        pause = min(next(self._pauses), max(0.0, left))
        self._log(f"{diagnosis.reason}: {diagnosis.message} Starting the engine again in {pause:.0f} s")
        self._report.retry(diagnosis.reason, diagnosis.message)
        if not child.stop_within(pause):
            return False
        termination.write(replace(diagnosis, exit_code=0))
        self._log("stopped as asked, before the engine was started again")
        return True

    def _drain(self, engine: Child, intent: Intent, received: signal.Signals) -> signal.Signals:
        """Wait for the requests of a version that ends them at once; a second signal ends the wait."""
        self._log(f"{received.name}: this version does not wait for its requests, so the launcher does")
        again: list[int | signal.Signals] = []

        def sleep(seconds: float) -> None:
            ended = engine.wait(seconds)
            if ended is not None:
                again.append(ended)
                raise _Interrupted

        # Nobody takes addresses away here: where somebody does, the preStop hook has waited already.
        with suppress(_Interrupted):
            drain.drain(intent, self._log, sleep=sleep, settle=0.0)
        return again[0] if again and isinstance(again[0], signal.Signals) else received

    def _stop(self, engine: Child, intent: Intent, received: signal.Signals) -> None:
        """Let the engine drain, then end it: a drain that runs out leaves vLLM hanging with its streams open."""
        drained = drain.seconds_drained()
        patience = max(0.0, intent.drain_timeout_seconds - drained) + drain.STOP_MARGIN_SECONDS
        self._log(f"{received.name}: passing it on, and waiting up to {patience:.0f} s")
        engine.send(received)
        deadline = time.monotonic() + patience
        while True:
            ended = engine.wait(max(0.0, deadline - time.monotonic()))
            if isinstance(ended, signal.Signals):
                engine.send(ended)
            elif ended is None:
                self._log("the engine did not end in time: killing it")
                engine.kill_group()
                engine.wait(5.0)
                return
            else:
                self._log(f"the engine ended with {ended}")
                return


def refuse(diagnosis: Diagnosis, log: Callable[[str], None]) -> int:
    """Say why the engine does not run, and return the exit code."""
    log(f"{diagnosis.reason}: {diagnosis.message} {diagnosis.hint}")
    termination.write(diagnosis)
    return diagnosis.exit_code


def interrupted(served: bool, report: Report, version: str | None, lines: list[str]) -> Diagnosis | None:
    """A stop before the engine was started: wanted, or the startup probe's. None where it had been started."""
    tail = tuple(line for line in lines if line.strip())[-20:]
    canary = report.canary
    if not served:
        return Diagnosis(
            "StartInterrupted",
            "The engine was told to stop before it served.",
            "If nobody wanted that, the startup probe did: raise spec.startup.budget.",
            0,
            version,
            tail,
        )
    if canary.state == "failed":
        return Diagnosis(
            "CanaryFailed",
            f"The engine was healthy, but did not complete a token before it was told to stop: {canary.error}",
            "Look at the engine's log. If the first answer only takes long, raise spec.startup.budget; "
            "spec.startup.canary: false takes an engine without this test.",
            0,
            version,
            tail,
        )
    if canary.state == "pending":
        return Diagnosis(
            "StartInterrupted",
            "The engine was told to stop before it had completed its first token.",
            "If nobody wanted that, the startup probe did: raise spec.startup.budget.",
            0,
            version,
            tail,
        )
    return None
