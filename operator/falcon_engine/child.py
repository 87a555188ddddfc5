"""Runs one process as the first process of a container must: signals, output, orphans, and no survivor."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# What asks the container to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A Python traceback through three processes has about 200 lines.
RING_LINES = 400
_LINE_BYTES = 4000
# What is held of a line that has not ended: more than the engine's longest, which tells its configuration.
_REST_BYTES = 16384
_CHUNK_BYTES = 65536
_PR_SET_CHILD_SUBREAPER = 36


class Child:
    """A process in a session of its own, whose output passes through and whose last lines are kept.

    `on_chunk` gets the output as whole lines, many at a time, from two threads. `environ` comes on top of the
    launcher's own. Raises `OSError` where the program cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], on_chunk: Callable[[bytes], None], environ: Mapping[str, str] | None = None
    ) -> None:
        self._ring: deque[bytes] = deque(maxlen=RING_LINES)
        self._on_chunk = on_chunk
        self._returncode: int | None = None
        _adopt_orphans()
        pipes = [os.pipe(), os.pipe()]
        # Not subprocess: it would fork while other threads run, to give back the signals that this process holds.
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                list(argv),
                {**os.environ, **(environ or {})},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    *((os.POSIX_SPAWN_DUP2, write, target) for target, (_, write) in enumerate(pipes, 1)),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these two
            )
        except OSError:
            for read, _ in pipes:
                os.close(read)
            raise
        finally:
            for _, write in pipes:
                os.close(write)
        self._pumps = [
            threading.Thread(target=self._pump, args=(read, target), daemon=True)
            for target, (read, _) in enumerate(pipes, 1)
        ]
        for pump in self._pumps:
            pump.start()

    @property
    def lines(self) -> list[str]:
        """The last lines; of a progress bar, what it showed last."""
        return [line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", "replace") for line in list(self._ring)]

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
        if self._returncode is not None:
            return self._returncode
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self.pid:
                self._returncode = os.waitstatus_to_exitcode(status)
                return self._returncode

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
        with os.fdopen(source, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_CHUNK_BYTES):
                _write(target, chunk)
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                rest = rest[-_REST_BYTES:]
                if newline:
                    self._keep(whole)
        if rest:
            self._keep(rest)

    def _keep(self, chunk: bytes) -> None:
        self._on_chunk(chunk)
        lines = chunk.rsplit(b"\n", RING_LINES)[-RING_LINES:]
        self._ring.extend(line if len(line) <= _LINE_BYTES else _cut(line) for line in lines)


def hold_signals() -> None:
    """Keep stop signals until `Child.wait` takes them: none is lost, and none interrupts at a bad moment.

    Without this the kernel would drop them for a container's first process, and those that whoever started it ignores.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:  # as a shell does for what it runs in the background
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})


def stop_pending() -> bool:
    """Whether a stop signal came in that nobody has taken yet."""
    return bool(signal.sigpending() & set(STOP_SIGNALS))


def stop_within(seconds: float) -> bool:
    """Wait for a stop signal; whether one came in."""
    return signal.sigtimedwait(set(STOP_SIGNALS), seconds) is not None


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


def _cut(line: bytes) -> bytes:
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1][:_LINE_BYTES]


def _write(target: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(target, data) :]
        except OSError:
            return  # nobody reads the log any more; the engine goes on
