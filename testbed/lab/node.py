"""The node's namespaces: a holder process keeps them, and commands run inside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO, Any

from . import processes
from .cgroups import Cgroups
from .layout import HOLDER, SERVICE_CIDR, Layout
from .processes import Process
from .progress import TestbedError, wait_until

NAMESPACES = ("--net", "--mount", "--pid", "--cgroup", "--uts", "--ipc")


class Node:
    """The namespaces of one testbed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._record = layout.run / "holder"
        self.cgroups = Cgroups(layout.cgroup, layout.run / "cgroups")

    @property
    def holder(self) -> Process | None:
        """The node's PID 1, if it runs."""
        return Process.read(self._record)

    @property
    def since(self) -> str:
        """When the holder was started, as the API server writes times."""
        return str(json.loads((self._layout.run / "since").read_text()))

    def start(self) -> bool:
        """Start the holder; say whether it had to be."""
        if self.holder:
            return False
        for stale in (self._layout.run / "pids", self._layout.run / "holder-ready"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        (self._layout.run / "pids").mkdir()
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        (self._layout.run / "since").write_text(json.dumps(since))
        self.cgroups.create()
        environment = os.environ | {
            "STATE": str(self._layout.state),
            "NODE": self._layout.node,
            "NODE_IP": self._layout.node_ip,
            "POD_CIDR": self._layout.pod_cidr,
            "SERVICE_CIDR": SERVICE_CIDR,
        }
        log = self._layout.log / "holder.log"
        with log.open("w") as output:
            # --kill-child: whatever ends the outer process ends PID 1, and PID 1's end is everybody's
            outer = subprocess.Popen(
                ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "bash", str(HOLDER)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=self.cgroups.join_as_root,
            )

        def ready() -> bool:
            if outer.poll() is not None:
                raise TestbedError(f"The node's namespaces could not be made:\n{log.read_text()[-2000:]}")
            return (self._layout.run / "holder-ready").exists()

        wait_until("Making the node's namespaces", ready, 20, log.read_text)
        child = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0]
        holder = Process.of(int(child))
        if holder is None:
            raise TestbedError(f"The node's holder ended at once:\n{log.read_text()[-2000:]}")
        self.cgroups.settle()
        holder.write(self._record)
        return True

    def _enter(self, *namespaces: str) -> list[str]:
        holder = self.holder
        if holder is None:
            raise TestbedError("The testbed is not up. Start it with testbed/up.")
        return ["nsenter", "-t", str(holder.pid), *namespaces]

    def inside(self, *command: str, stdin: IO[Any] | int = subprocess.DEVNULL) -> str:
        """Run a command as the node does: in all its namespaces and its cgroup. Return what it printed."""
        done = subprocess.run(
            [*self._enter("-n", "-m", "-p", "-C", "-u", "-i"), *command],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=self.cgroups.join,
        )
        if done.returncode:
            raise TestbedError(f"{' '.join(command[:3])} failed in the node:\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def spawn(self, command: list[str], log: Path) -> Process:
        """Start a command that outlives this one, in all the node's namespaces, and return its process."""
        script = 'log=$1; shift; setsid "$@" >"$log" 2>&1 </dev/null & echo $!'
        inner = int(self.inside("sh", "-c", script, "sh", str(log), *command))
        process = self._outer(inner)
        if process is None:
            raise TestbedError(f"{command[0]} ended at once:\n{log.read_text()[-2000:]}")
        return process

    def _outer(self, inner: int) -> Process | None:
        """Find the process that the node's own PID namespace numbers `inner`."""
        for pid in processes.all_pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if numbers[-1] == str(inner) and processes.namespace(pid, "pid") == self._pid_namespace():
                return Process.of(pid)
        return None

    def _pid_namespace(self) -> str | None:
        holder = self.holder
        return processes.namespace(holder.pid, "pid") if holder else None

    def on_network(self, command: list[str]) -> list[str]:
        """Return the command line that runs `command` on the node's network with the machine's files.

        Only /etc/resolv.conf is another, so that names of Services resolve.
        """
        script = '[ ! -e /etc/resolv.conf ] || mount --bind "$0" /etc/resolv.conf; exec "$@"'
        resolv = str(self._layout.etc / "resolv.conf")
        return [*self._enter("-n"), "unshare", "--mount", "sh", "-c", script, resolv, *command]

    def environment(self) -> dict[str, str]:
        """Return the environment of such a command: its kubeconfig, our kubectl and helm, no cache in HOME."""
        run = self._layout.run
        return os.environ | {
            "KUBECONFIG": str(self._layout.kubeconfig),
            "KUBECACHEDIR": str(run / "kube-cache"),
            "HELM_CACHE_HOME": str(run / "helm-cache"),
            "HELM_CONFIG_HOME": str(run / "helm-config"),
            "HELM_DATA_HOME": str(run / "helm-data"),
            "PATH": f"{self._layout.bin}:{os.environ.get('PATH', '')}",
        }

    def members(self) -> list[Process]:
        """Return every process of the node: in its cgroups, its PID namespace's, or on its network."""
        pids = self.cgroups.processes()
        holder = self.holder
        if holder:
            network = processes.namespace(holder.pid, "net")
            pids |= {pid for pid in processes.all_pids() if processes.namespace(pid, "net") == network}
        return [process for pid in sorted(pids) if (process := Process.of(pid)) is not None]
