"""The processes of the node: their command lines, and how each is started, awaited and stopped."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from .kubectl import Kubectl
from .layout import API_SERVER, CLUSTER_DOMAIN, CLUSTER_POD_CIDR, HERE, KWOK_POD_CIDR, NODE_IP, SERVICE_CIDR, Layout
from .node import Node
from .processes import Process
from .progress import TestbedError, say, wait_until

# in the order in which they start; they stop in the reverse order
NAMES = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kwok",
    "netpol",
)
# those of a second or third node
WORKER_NAMES = ("containerd", "kubelet", "kube-proxy")
# runs only where it is asked for
POLICIES = "netpol"
# These are programs of the machine; all others are built.
_PROGRAMS = {"containerd": "containerd", POLICIES: "python3"}
_AGENT = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('testbed.lab.netpol', run_name='__main__')"
)
REAL_NODE_LABEL = "falcon.testbed/real"


def command_lines(layout: Layout) -> dict[str, list[str]]:
    """Return the command line of each component."""
    pki, etc = layout.pki, layout.etc

    def config(name: str) -> str:
        return str(etc / f"{name}.kubeconfig")

    def delegated(name: str) -> list[str]:
        return [
            f"--{use}={config(name)}" for use in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        ]

    def binary(name: str) -> str:
        return str(layout.bin / name)

    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    service_accounts = pki / "service-accounts.key"
    lines = {
        "etcd": [
            f"--data-dir={layout.state / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # a power cut may cost the cluster's data; every write is faster
            "--log-level=warn",
        ],
        "containerd": [f"--config={etc / 'containerd.toml'}", "--log-level=warn"],
        "kube-apiserver": [
            f"--etcd-servers={client}",
            f"--advertise-address={NODE_IP}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-account-key-file={service_accounts}",
            f"--service-account-signing-key-file={service_accounts}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            "--enable-aggregator-routing",
            f"--audit-policy-file={etc / 'audit-policy.yaml'}",
            f"--audit-log-path={layout.audit_log}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=4",
            *shlex.split(os.environ.get("FALCON_TESTBED_APISERVER_ARGS", "")),
        ],
        "kube-controller-manager": [
            *delegated("kube-controller-manager"),
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={service_accounts}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
            f"--cluster-cidr={CLUSTER_POD_CIDR}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--allocate-node-cidrs=false",
        ],
        "kube-scheduler": [*delegated("kube-scheduler"), "--leader-elect=false", "--bind-address=127.0.0.1"],
        "kubelet": [
            f"--config={etc / 'kubelet.yaml'}",
            f"--kubeconfig={config(layout.kubelet_user)}",
            f"--node-ip={layout.node_ip}",
            f"--hostname-override={layout.node}",
            f"--node-labels={REAL_NODE_LABEL}=true",
            "--v=1",
        ],
        "kube-proxy": [f"--config={etc / 'kube-proxy.yaml'}", "--v=1"],
        "kwok": [
            f"--config={binary('kwok-stages.yaml')}",
            f"--kubeconfig={config('kwok')}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--cidr={KWOK_POD_CIDR}",
            "--node-lease-duration-seconds=40",
        ],
        # the last two are for the fingerprint: other code is another agent
        POLICIES: [
            *("-P", "-u", "-c", _AGENT, str(HERE.parents[1]), API_SERVER, str(pki), layout.node),
            *(f"code={HERE / file}" for file in ("netpol.py", "policy_rules.py")),
        ],
    }
    return {name: [_PROGRAMS.get(name) or binary(name), *lines[name]] for name in NAMES}


def fingerprint(command: list[str]) -> str:
    """Hash a command line with the contents of the files it names and the build that its binary is."""
    digest = hashlib.sha256(repr(command).encode())
    digest.update(str(Path(command[0]).resolve()).encode())
    for argument in command[1:]:
        file = Path(argument.partition("=")[2])
        if file.is_file() and file.suffix != ".log":
            digest.update(file.read_bytes())
    return digest.hexdigest()


class Components:
    """Starts, awaits and stops the components of one node."""

    def __init__(self, layout: Layout, node: Node) -> None:
        self._layout = layout
        self._node = node
        self._kubectl = Kubectl(node)

    def _record(self, name: str) -> Path:
        return self._layout.run / "pids" / name

    def process(self, name: str) -> Process | None:
        """Return the component's process, if it runs."""
        return Process.read(self._record(name))

    def log_tail(self, name: str) -> str:
        """Return the end of the component's log, for an error message."""
        log = self._layout.log / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        return "\n".join([f"The end of {log}:", *lines])

    def start(self, name: str) -> bool:
        """Start the component unless it runs as it should; say whether it had to be started."""
        command = command_lines(self._layout)[name]
        wanted, running = fingerprint(command), self._record(name).with_suffix(".fingerprint")
        if self.process(name):
            if running.exists() and running.read_text() == wanted:
                return False
            say(f"{name} is to run differently: restarting it")
            self.stop(name)
        process = self._node.spawn(command, self._layout.log / f"{name}.log")
        running.write_text(wanted)
        process.write(self._record(name))
        return True

    def await_ready(self, name: str, seconds: float = 120) -> None:
        """Wait until the component answers (those without an address to ask: until it has stayed a moment)."""

        def ready() -> bool:
            process = self.process(name)
            if process is None:
                raise TestbedError(f"{name} has ended. {self.log_tail(name)}")
            return self._answers(name, process)

        wait_until(f"Starting {name}", ready, seconds, lambda: self.log_tail(name))

    def _answers(self, name: str, process: Process) -> bool:
        if name == "kube-apiserver":
            return self._kubectl.succeeds("get", "--raw", "/readyz")
        if name == "containerd":
            try:
                self._node.inside("ctr", "version")
            except TestbedError:
                return False
            return True
        return process.age() > 0.5

    def stop(self, name: str, grace: float = 10) -> bool:
        """Stop the component; say whether it is gone."""
        process = self.process(name)
        gone = process is None or process.end(grace)
        self._record(name).unlink(missing_ok=True)
        return gone
