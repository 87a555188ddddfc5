"""Runs one process as the first process of a container must: signals, output, orphans, and no survivor."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

# What asks the container to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A Python traceback through three processes has about 200 lines.
RING_LINES = 400
_LINE_BYTES = 4000
_PR_SET_CHILD_SUBREAPER = 36


class Child:
    """A process in a group of its own, whose output passes through and whose last lines are kept."""

    def __init__(self, argv: Sequence[str], on_line: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=RING_LINES)
        self._on_line = on_line
        _adopt_orphans()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_unblock,  # no thread runs yet
        )
        self.pid = self._process.pid
        self._pumps = [
            threading.Thread(target=self._pump, args=(pipe.fileno(), out), daemon=True)
            for pipe, out in ((self._process.stdout, 1), (self._process.stderr, 2))
            if pipe is not None
        ]
        for pump in self._pumps:
            pump.start()

    def send(self, number: int) -> None:
        """Send a signal to the process itself: it decides what its own children get."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def kill_group(self) -> None:
        """End the process and all that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self, timeout: float | None = None) -> int | signal.Signals | None:
        """Wait for the end (an exit code, negative for a signal), a stop signal, or the timeout (None)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            code = self._reap()
            if code is not None:
                return code
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            received = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, left)
            if received and received.si_signo != signal.SIGCHLD:
                return signal.Signals(received.si_signo)

    def finish(self) -> None:
        """After the end: leave nothing running, and let the last lines through."""
        self.kill_group()
        end = time.monotonic() + 5
        while self._reap_any() and time.monotonic() < end:
            for orphan in _children():
                os.kill(orphan, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        for pump in self._pumps:
            pump.join(timeout=2)  # a process that left the group may still hold the pipe

    def _reap(self) -> int | None:
        """Take in every process that has ended, orphans included; the exit code where it was the child."""
        if self._process.returncode is not None:
            return self._process.returncode
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                return self._process.returncode

    @staticmethod
    def _reap_any() -> bool:
        """Whether processes of ours are left after taking in those that have ended."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True

    def _pump(self, source: int, target: int) -> None:
        rest = b""
        while True:
            try:
                chunk = os.read(source, 65536)
            except OSError:
                chunk = b""
            if not chunk:
                break
            _write(target, chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_LINE_BYTES:]
            for line in lines:
                self._keep(line)
        if rest:
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]  # of a progress bar, what it showed last
        decoded = text[:_LINE_BYTES].decode("utf-8", "replace")
        self.lines.append(decoded)
        self._on_line(decoded)


def hold_signals() -> None:
    """Keep stop signals until `Child.wait` takes them: none is lost, and none interrupts at a bad moment.

    Without this the kernel would drop them for a container's first process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})


def stop_pending() -> bool:
    """Whether a stop signal came in that nobody has taken yet."""
    return bool(signal.sigpending() & set(STOP_SIGNALS))


def _children() -> list[int]:
    """Processes whose parent this is, adopted ones included."""
    try:
        return [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _adopt_orphans() -> None:
    """Become the parent of whatever the engine leaves behind, also where another process is the container's first."""
    if os.getpid() == 1 or not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _write(target: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(target, data) :]
        except OSError:
            return  # nobody reads the log any more; the engine goes on
