"""The commands of the testbed; each executable in its folder calls `main` with its own name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import down as down_command
from . import packages as packages_command
from . import up as up_command
from . import workers
from .components import NAMES, Components
from .gobuild import GROUPS, NODE_GROUPS, Builder
from .kubectl import Kubectl
from .layout import Layout, layout
from .lock import alone
from .node import Node
from .progress import TestbedError, say


def _up(place: Layout, arguments: Sequence[str]) -> None:
    options = up_command.parser().parse_args(arguments)
    with alone(place.state / "lock", "another testbed command"):
        up_command.up(place, options)


def _down(place: Layout, arguments: Sequence[str]) -> None:
    options = down_command.parser().parse_args(arguments)
    with alone(place.state / "lock", "another testbed command"):
        down_command.down(place, options)


def _status(place: Layout, arguments: Sequence[str]) -> None:
    if arguments:
        raise TestbedError("testbed/status takes no arguments.")
    node = Node(place)
    holder = node.holder
    if holder is None:
        raise TestbedError("The testbed is not up. Start it with testbed/up.")
    print(f"up for {holder.age():.0f} s; {len(node.members())} processes; state {place.state}, cache {place.cache}")
    components = Components(place, node)
    for name in NAMES:
        process = components.process(name)
        if process is None:
            print(f"  {name:24} does not run; testbed/component start {name}")
        else:
            print(f"  {name:24} pid {process.pid:<8} {process.memory() / 1e6:5.0f} MB  up {process.age():.0f} s")
    for worker in place.workers():
        further = Node(worker)
        if further.holder:
            print(f"  {worker.node:24} {len(further.members())} processes")
    kubectl = Kubectl(node)
    if kubectl.succeeds("get", "--raw", "/readyz"):
        print(kubectl("get", "nodes", "-o", "wide"), end="")
        print(kubectl("get", "pods", "-A"), end="")
    else:
        print("The API server does not answer.")
    times = place.run / "up.json"
    if times.exists():
        print("times of the last up:")
        for text, seconds in json.loads(times.read_text()):
            print(f"  {seconds:6.1f} s  {text}")
    print(f"kubeconfig {place.kubeconfig}\naudit log  {place.audit_log}")


def _component(place: Layout, arguments: Sequence[str]) -> None:
    action, names = (arguments[0], arguments[1:]) if arguments else ("", [])
    if action not in ("start", "stop") or not names or any(name not in NAMES for name in names):
        raise TestbedError(f"Usage: testbed/component start|stop NAME...; names: {', '.join(NAMES)}.")
    components = Components(place, Node(place))
    for name in names:
        if action == "stop" and not components.stop(name):
            raise TestbedError(f"{name} does not end.")
        if action == "start" and components.start(name):
            components.await_ready(name)
        say(f"{name}: {'runs' if action == 'start' else 'stopped'}")


def _cut(place: Layout, arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise TestbedError("Usage: testbed/cut NODE")
    workers.cut(place, arguments[0])
    say(f"{arguments[0]}: cut off")


def _mend(place: Layout, arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise TestbedError("Usage: testbed/mend NODE")
    workers.mend(place, arguments[0])
    say(f"{arguments[0]}: connected")


def _packages(_place: Layout, _arguments: Sequence[str]) -> None:
    packages_command.install()
    say("all Debian packages are there")


def _build(place: Layout, arguments: Sequence[str]) -> None:
    unknown = [name for name in arguments if name not in GROUPS]
    if unknown:
        raise TestbedError(f"There is nothing to build called {', '.join(unknown)}; names: {', '.join(GROUPS)}.")
    Builder(place).build(*(arguments or NODE_GROUPS))


def _become(place: Layout, command: Sequence[str]) -> NoReturn:
    """Replace this process by the command, on the node's network."""
    node = Node(place)
    line, environment = node.on_network(list(command)), node.environment()
    os.execvpe(line[0], line, environment)


def _exec(place: Layout, arguments: Sequence[str]) -> None:
    if not arguments:
        raise TestbedError("Usage: testbed/exec COMMAND [ARGUMENT...]")
    _become(place, arguments)


def _kubectl(place: Layout, arguments: Sequence[str]) -> None:
    _become(place, ["kubectl", *arguments])


def _helm(place: Layout, arguments: Sequence[str]) -> None:
    _become(place, ["helm", *arguments])


def _helm3(place: Layout, arguments: Sequence[str]) -> None:
    Builder(place).build("helm3")
    _become(place, ["helm3", *arguments])


COMMANDS: dict[str, Callable[[Layout, Sequence[str]], None]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "component": _component,
    "cut": _cut,
    "mend": _mend,
    "packages": _packages,
    "build": _build,
    "exec": _exec,
    "kubectl": _kubectl,
    "helm": _helm,
    "helm3": _helm3,
}


def main(name: str, arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    try:
        if os.geteuid() != 0:
            raise TestbedError("The testbed makes namespaces and mounts: run it as root.")
        COMMANDS[name](layout(), arguments)
    except TestbedError as error:
        print(f"testbed/{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
