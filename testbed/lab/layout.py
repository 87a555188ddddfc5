"""Where the testbed keeps its files, and the fixed names and addresses of its cluster."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .progress import TestbedError

HERE = Path(__file__).resolve().parent
GO_MODULE = HERE.parent / "go"
MANIFESTS = HERE / "manifests"
HOLDER = HERE / "holder.sh"

KUBERNETES_VERSION = "v1.36.3"
NODE = "falcon-node"
NODE_IP = "10.97.0.1"
NODES_CIDR = "10.97.0.0/24"
POD_CIDR = "10.244.0.0/24"
CLUSTER_POD_CIDR = "10.244.0.0/16"
MOST_NODES = 3
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
API_SERVER = f"https://{NODE_IP}:6443"
KWOK_POD_CIDR = "10.245.0.0/16"

# What the node sees its own folders in place of: nothing the testbed needs may lie there.
HIDDEN = (Path("/run"), Path("/var/run"), Path("/var/lib"), Path("/var/log"))


@dataclass(frozen=True)
class Layout:
    """The two folders of one testbed: a cache that outlives it and a state that `down --purge` deletes."""

    cache: Path
    state: Path
    number: int = 1  # of the node: the second and third have a state of their own within that of the first

    def worker(self, number: int) -> Layout:
        """Return the layout of the second or third node."""
        return Layout(self.cache, self.state / f"node{number}", number)

    def workers(self) -> list[Layout]:
        """Return the layouts of the further nodes that have a state, whether they run or not."""
        return [there for n in range(2, MOST_NODES + 1) if (there := self.worker(n)).state.is_dir()]

    @property
    def node(self) -> str:
        """The node's name."""
        return NODE if self.number == 1 else f"{NODE}-{self.number}"

    @property
    def node_ip(self) -> str:
        """The node's address."""
        return f"{NODE_IP.rpartition('.')[0]}.{self.number}"

    @property
    def pod_cidr(self) -> str:
        """The addresses of the node's pods."""
        return POD_CIDR.replace(".0.0/", f".{self.number - 1}.0/")

    @property
    def kubelet_user(self) -> str:
        """The name of the kubelet's certificate and kubeconfig."""
        return "kubelet" if self.number == 1 else f"kubelet-{self.number}"

    @property
    def _first(self) -> Path:
        return self.state if self.number == 1 else self.state.parent

    @cached_property
    def cgroup(self) -> str:
        """The cgroup's name: of the state folder, since two kubelets must never share one."""
        name = f"{self._first.name}-{hashlib.sha256(str(self._first).encode()).hexdigest()[:8]}"
        return name if self.number == 1 else f"{name}-node{self.number}"

    @property
    def images(self) -> Path:
        """OCI archives that the image builders leave for `up` to import."""
        return self.cache / "images"

    @property
    def bin(self) -> Path:
        """Links to the binaries that this testbed runs."""
        return self._first / "bin"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self._first / "pki"

    @property
    def etc(self) -> Path:
        """Kubeconfigs and configuration files of the components."""
        return self.state / "etc"

    @property
    def log(self) -> Path:
        """One log file for each component, and the audit log."""
        return self.state / "log"

    @property
    def run(self) -> Path:
        """What is only true while the testbed is up."""
        return self.state / "run"

    @property
    def containerd(self) -> Path:
        """The containerd store."""
        return self.state / "containerd"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works inside the network namespace."""
        return self.state / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one JSON object a line for each finished request."""
        return self.log / "audit.log"

    def make_folders(self) -> None:
        """Create the folders that are not there."""
        for folder in (self.images, self.bin, self.pki, self.etc, self.log, self.run, self.containerd):
            folder.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o755)
        self.pki.chmod(0o700)


def layout() -> Layout:
    """Read the two folders from the environment."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(os.environ.get("FALCON_CACHE") or Path(cache_home) / "falcon-operator").resolve()
    state = Path(os.environ.get("FALCON_TESTBED") or "/var/tmp/falcon-testbed").resolve()
    for variable, folder in (("FALCON_CACHE", cache), ("FALCON_TESTBED", state)):
        if any(folder.is_relative_to(hidden) for hidden in HIDDEN):
            raise TestbedError(
                f"{variable} is {folder}, which the node cannot see: it has its own /run, /var/lib and /var/log. "
                f"Set {variable} to another folder."
            )
    return Layout(cache, state)
