"""`testbed/down`: ends the node and proves that nothing of it is left."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from . import cgroups, processes
from .components import NAMES, Components
from .layout import Layout
from .node import Node
from .processes import Process
from .progress import TestbedError, say, step

_KINDS = ("net", "mnt", "pid", "cgroup", "uts", "ipc")
_STATE = ("bin", "containerd", "containerd.new", "etc", "etcd", "log", "pki", "run", "var-lib", "var-log")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(prog="testbed/down", description=__doc__)
    options.add_argument("--purge", action="store_true", help="delete the cluster's state as well (the cache stays)")
    return options


def _namespaces(holder: Process | None) -> set[str]:
    """Return the holder's namespaces, less those that it shares with this process."""
    if holder is None:
        return set()
    theirs = {processes.namespace(holder.pid, kind) for kind in _KINDS}
    ours = {processes.namespace(os.getpid(), kind) for kind in _KINDS}
    return {found for found in theirs - ours if found is not None}


def _still_in(namespaces: set[str], before: float) -> list[Process]:
    """Return the processes in them that are older than this command: the kernel reuses the numbers of namespaces."""
    age = time.monotonic() - before
    found = []
    for pid in processes.all_pids():
        if any(processes.namespace(pid, kind) in namespaces for kind in _KINDS):
            process = Process.of(pid)
            if process is not None and process.alive() and process.age() > age:
                found.append(process)
    return found


def _mounts(layout: Layout, namespaces: set[str]) -> list[str]:
    """Return this machine's mounts that lie in the state folder or keep one of the namespaces."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if f"{layout.state}/" in line or any(name in line for name in namespaces)]


def _cgroups(layout: Layout) -> list[str]:
    return [
        os.path.join(path, folder)
        for path, folders, _ in os.walk(cgroups.ROOT)
        for folder in folders
        if folder.startswith(layout.cgroup)
    ]


def end_nodes(layouts: Sequence[Layout]) -> tuple[list[Process], set[str], list[str]]:
    """End nodes, one after another: the components, then PID 1 (the kernel ends the rest with it).

    Returns what is to be looked for: their processes, their namespaces, and the cgroups that would not go.
    """
    nodes = [(layout, Node(layout)) for layout in layouts]
    members = [process for _, node in nodes for process in node.members()]
    namespaces = {found for _, node in nodes for found in _namespaces(node.holder)}
    groups = []
    mine = processes.ancestors()
    if any(process.pid in mine for process in members):
        raise TestbedError("testbed/down was started by testbed/exec: it would end itself. Run it on the machine.")
    with step(f"stopping {len(members)} processes"):
        for layout, node in nodes:
            components = Components(layout, node)
            for name in reversed(NAMES):
                components.stop(name, grace=5 if name == "etcd" else 2)
            if holder := node.holder:
                holder.end(grace=0)
        for process in members:  # what testbed/exec started has no PID namespace to end with
            process.end(grace=1)
        for _, node in nodes:
            groups += [str(path) for path in node.cgroups.remove()]
    for layout in layouts:
        for name in ("holder", "holder-ready", "since"):
            (layout.run / name).unlink(missing_ok=True)
        shutil.rmtree(layout.run / "pids", ignore_errors=True)
    return members, namespaces, groups


def down(layout: Layout, options: argparse.Namespace) -> None:
    """End the further nodes, then the first one, and look for anything left."""
    begin = time.monotonic()
    layout.run.mkdir(parents=True, exist_ok=True)
    members, namespaces, groups = end_nodes([*layout.workers(), layout])
    left = {
        "processes": [f"{p.pid} {p.command()}" for p in {*members, *_still_in(namespaces, begin)} if p.alive()],
        "mounts": _mounts(layout, namespaces),
        "cgroups": sorted({*groups, *_cgroups(layout)}),
    }
    for what, found in left.items():
        say(f"{what} left: {len(found)}")
        for one in found:
            print(f"  {one}")
    if any(left.values()):
        raise TestbedError("Not everything of the testbed is gone; see above.")
    say(f"namespaces left: 0 of {len(namespaces)} (no process or mount keeps one)")
    if options.purge:
        purge(layout)
    say("the testbed is down")


def purge(layout: Layout) -> None:
    """Delete the state, folder by folder: never what the testbed did not make."""
    with step(f"deleting the state in {layout.state}"):
        for name in (*_STATE, *(worker.state.name for worker in layout.workers())):
            shutil.rmtree(layout.state / name, ignore_errors=True)
        layout.kubeconfig.unlink(missing_ok=True)
        (layout.state / "lock").unlink(missing_ok=True)
        if layout.state.exists() and not any(layout.state.iterdir()):
            layout.state.rmdir()
