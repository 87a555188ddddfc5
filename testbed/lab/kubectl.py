"""kubectl on the node's network, for the testbed's own use."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from .node import Node
from .progress import TestbedError, patience

# What kubectl says when it did not get to do anything, as on a slow machine whose API server has no time for it:
# trying again cannot do anything twice.
_NOT_HEARD = (
    "TLS handshake timeout",
    "connection refused",
    "couldn't get current server API group list",
    "the server is currently unable to handle the request",
)
_HEARD_WITHIN = 60


class Kubectl:
    """Runs kubectl as the administrator."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def _run(self, arguments: tuple[str, ...], text: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._node.on_network(["kubectl", *arguments]),
            env=self._node.environment(),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeeds(self, *arguments: str) -> bool:
        """Say whether the command succeeds."""
        return self._run(arguments, None).returncode == 0

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        """Run the command, with `text` as its input, and return what it prints."""
        deadline = time.monotonic() + patience(_HEARD_WITHIN)
        done = self._run(arguments, text)
        while done.returncode and any(cause in done.stderr for cause in _NOT_HEARD) and time.monotonic() < deadline:
            time.sleep(0.5)
            done = self._run(arguments, text)
        if done.returncode:
            raise TestbedError(f"kubectl {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get` gives, as an object."""
        return json.loads(self("get", *arguments, "-o", "json"))

    def apply(self, *documents: str) -> None:
        """Apply manifests."""
        self("apply", "--server-side", "--force-conflicts", "-f", "-", text="\n---\n".join(documents))
