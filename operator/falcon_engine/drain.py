"""The preStop hook: holds SIGTERM back until nothing runs or waits in the engine."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from falcon_engine import loopback
from falcon_engine.intent import Intent

# New connections still come in after the pod is marked as leaving, until every node's kube-proxy and the gateway have
# taken its address out: the cluster's DNS may repeat an answer for 5 s, and the gateway asks it each half second. An
# engine that looks idle before that is not.
SETTLE_SECONDS = 8.0
POLL_SECONDS = 1.0
# vLLM needs 6 to 9 s from its last token to its end.
STOP_MARGIN_SECONDS = 15.0

# num_requests_waiting_by_reason begins with the name of the second one: only whole names count.
RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")


def pending(metrics: str) -> float | None:
    """Requests that run or wait, over all engines of the process; None where the metrics do not say."""
    total, seen = 0.0, set()
    for line in metrics.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in RUNNING:
            try:
                total += float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
            except (IndexError, ValueError):
                return None
            seen.add(name)
    return total if len(seen) == len(RUNNING) else None


def drain(
    intent: Intent,
    log: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    settle: float = SETTLE_SECONDS,
) -> None:
    """Return when the engine has been idle twice in a row, is gone, or `drainTimeoutSeconds` have passed.

    Before it looks at all it waits for `settle` seconds, which count to the timeout and are waited for in any case.
    """
    mark_start()
    begin = clock()
    if not loopback.listens(intent.port):
        log("the engine does not answer: nothing to drain")
        return
    sleep(settle)
    idle = 0
    while clock() - begin < intent.drain_timeout_seconds:
        answer = loopback.get(intent.port, "/metrics")
        if answer is None and not loopback.listens(intent.port):
            log("the engine is gone: nothing left to drain")
            return
        # Unknown is not zero, and an engine that is slow to answer is busy.
        waiting = pending(answer[1]) if answer is not None and answer[0] == 200 else None
        idle = idle + 1 if waiting == 0 else 0
        if idle == 2:
            log(f"the engine is idle after {clock() - begin:.0f} s")
            return
        sleep(POLL_SECONDS)
    log(f"requests still run after {intent.drain_timeout_seconds} s: going on without them")


def _mark() -> Path:
    return Path(tempfile.gettempdir()) / f"falcon-drain-{os.getuid()}"


def mark_start() -> None:
    """Tell the launcher when draining began, so that both together take one drain timeout, not two."""
    try:
        _mark().write_text(str(time.monotonic()))  # seconds since boot: the same clock in every process
    except OSError:
        return


def seconds_drained() -> float:
    """How long this container has been draining; 0 where no hook ran."""
    try:
        began = float(_mark().read_text())
    except (OSError, ValueError):
        return 0.0
    return max(0.0, time.monotonic() - began)


def forget() -> None:
    """A container that starts has not begun to drain, whatever an earlier one left in a shared directory."""
    _mark().unlink(missing_ok=True)
