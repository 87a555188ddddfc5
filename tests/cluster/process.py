"""The operator as a process of its own, with its own user."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.world import wait_for

# Bounds a wait, and says nothing of how long a start may take: the machine may be busy.
READY_SECONDS = 180
STOP_SECONDS = 10


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_kubeconfig(path: Path, server: str, authority: str | None, token: str) -> Path:
    """A kubeconfig of a user with a token; without an authority for a plain connection to a proxy."""
    cluster = {"server": server} | ({"certificate-authority": authority} if authority else {})
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


class OperatorProcess:
    """One run of `falcon-operator run` in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, *options: str) -> None:
        self.port, self.log = free_port(), log
        # It speaks plain HTTP: certificates, which take long to load, have no part in it.
        self._client = httpx.Client(timeout=5, trust_env=False, verify=False)
        command = [sys.executable, "-m", "falcon_operator.cli", "run", "--namespace", namespace]
        command += ["--listen-port", str(self.port), "--log-format", "text", *options]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=output, stderr=subprocess.STDOUT
            )

    def answer(self, path: str) -> httpx.Response | None:
        """One of its endpoints; None while it does not listen."""
        try:
            return self._client.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.TransportError:
            return None

    def wait_ready(self) -> "OperatorProcess":
        """Wait until its caches are synced."""

        def ready() -> bool:
            assert self.exit_code is None, f"the operator ended with {self.exit_code}:\n{self.tail()}"
            answer = self.answer("/readyz")
            return answer is not None and answer.status_code == 200

        wait_for(ready, "ready operator", READY_SECONDS)
        return self

    def metric(self, name: str, /, **labels: str) -> float:
        """The sum of all samples of a metric with these labels."""
        answer = self.answer("/metrics")
        assert answer is not None
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def exit_code(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> int:
        """End it as Kubernetes does; returns its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it without notice."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def wait_exit(self, seconds: float = 30) -> int:
        """Wait until it has ended by itself, or was killed."""
        return self._process.wait(seconds)

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
