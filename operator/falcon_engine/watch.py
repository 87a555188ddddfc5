"""Follows one start of the engine: its log, its /health, and the canary; and says when the start is over."""

import os
import threading
import time
from collections.abc import Callable
from itertools import chain, repeat

from falcon_engine import canary, loopback
from falcon_engine.intent import Intent
from falcon_engine.report import Canary, Report

PROBE_SECONDS = 1.0
# From a failed canary to the next one; the last pause again and again, until the startup budget ends.
CANARY_PAUSES = (1.0, 2.0, 5.0, 10.0)


class Watch:
    """One start of the engine, from before its process exists."""

    def __init__(self, intent: Intent, report: Report, log: Callable[[str], None]) -> None:
        self._intent = intent
        self._report = report
        self._say = log
        self._log = report.begin(intent.canary)
        self._served = threading.Event()
        self._over = threading.Event()

    def feed(self, chunk: bytes) -> None:
        """Take whole lines of the engine's output."""
        self._log.feed(chunk, self._report.seconds())
        if "ready" in self._log.facts.phases:
            self._served.set()

    def start(self) -> None:
        """Begin to ask the engine."""
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """The engine has ended."""
        self._over.set()

    @property
    def served(self) -> bool:
        """Whether the engine has been healthy."""
        return self._served.is_set()

    def _run(self) -> None:
        # An image may log at a level that hides the line.
        while not self._served.wait(PROBE_SECONDS):
            if self._over.is_set():
                return
            answer = loopback.get(self._intent.port, "/health")
            if answer and answer[0] == 200:
                self._served.set()
        self._log.ready(self._report.seconds())
        if self._intent.canary:
            self._ask()

    def _ask(self) -> None:
        for pause in chain(CANARY_PAUSES, repeat(CANARY_PAUSES[-1])):
            begin = time.monotonic()
            error = canary.ask(self._intent.port, self._intent.names[0], os.environ)
            if self._over.is_set():
                return
            if error is None:
                self._report.canary = Canary("passed", round(time.monotonic() - begin, 2))
                self._say(f"the first completion took {time.monotonic() - begin:.1f} s")
                return
            if error != self._report.canary.error:
                self._say(f"warning: the engine is healthy, but not ready: {error}")
            self._report.canary = Canary("failed", None, error)
            self._over.wait(pause)
            if self._over.is_set():
                return


def started(report: Report, port: int) -> tuple[int, str]:
    """What the startup probe is told: a status, and one sentence."""
    health, state = loopback.get(port, "/health", 1.0), report.canary
    if health is None:
        return 503, f"The engine does not answer yet; it has come to: {report.facts.phase or 'prepared'}."
    if health[0] != 200:
        return 503, f"The engine's /health says {health[0]}."
    if state.state in ("off", "passed"):
        return 200, "The engine is started."
    return 503, f"The engine is healthy, but {state.error or 'its first completion is not done.'}"
