"""kubectl on the node's network, for the testbed's own use."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .node import Node
from .progress import TestbedError


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
