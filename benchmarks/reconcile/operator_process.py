"""The operator as its pod would run it: service account in the usual place, one process, no kubeconfig."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

# The account's folder is where a pod has it, in a mount namespace of the process's own.
_AS_POD = (
    "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && d=/run/secrets/kubernetes.io/serviceaccount && "
    'mkdir "$d" && cp "$0"/* "$d" && exec "$@"'
)
START_SECONDS = 60


class OperatorProcess:
    """One run of `falcon-operator run` in one namespace."""

    def __init__(self, server: str, account: Path, namespace: str, workers: int, log: Path) -> None:
        address = urlsplit(server)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        environment |= {
            "KUBERNETES_SERVICE_HOST": address.hostname or "",
            "KUBERNETES_SERVICE_PORT": str(address.port or 443),
        }
        command = [sys.executable, "-m", "falcon_operator.cli", "run", "--namespace", namespace]
        command += ["--listen-port", str(self.port), "--workers", str(workers)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _AS_POD, str(account), *command],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_synced(self) -> float:
        """Wait until its caches are synced; returns the seconds."""
        begin = time.monotonic()
        while time.monotonic() - begin < START_SECONDS:
            if self._process.poll() is not None:
                raise RuntimeError(f"the operator ended with {self._process.returncode}")
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return time.monotonic() - begin
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.02)
        raise RuntimeError("the operator is not ready")

    def memory(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024 / 1e6

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it without notice."""
        self._process.kill()
        self._process.wait(10)
