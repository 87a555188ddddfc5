"""What happens to a resource while clients stream: planned disruptions, which may cost nothing, and failures."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import yaml
from tests.load.cluster import RESOURCE, ROOT, Cluster, command, until

from falcon_operator.api import names

Json = dict[str, Any]
# Fake engines by the version whose manners they have, and the real one, which is slow and needs gigabytes.
REAL = "vllm"
IMAGES = {"0.32": "localhost/falcon-fake-engine:v0.32.0", "0.26": "localhost/falcon-fake-engine-older:v0.26.0"}
ENGINES = (*IMAGES, REAL)
OPERATOR_NAMESPACE = "falcon-system"
# One rollout of several pods, with their drains and starts, on a small machine.
SETTLE_SECONDS = 300.0
OUTAGE_SECONDS = 120.0

# Prints the gateway's requests, and kills it; its container starts again.
KILL_GATEWAY = """
exec 3<>/dev/tcp/127.0.0.1/8404
printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3
grep '^haproxy_frontend_current_sessions{proxy="openai"}' <&3
kill -9 $(cat /proc/1/task/1/children)
"""
# Prints the engine's requests, and kills its core.
KILL_CORE = """
import os, pathlib, signal, urllib.request
cores = [p for p in pathlib.Path('/proc').glob('[0-9]*') if b'EngineCor' in (p / 'cmdline').read_bytes()]
assert cores, 'no engine core process'
lines = urllib.request.urlopen('http://127.0.0.1:8000/metrics').read().decode().splitlines()
names = ('vllm:num_requests_running{', 'vllm:num_requests_waiting{')
print(sum(int(float(line.split()[-1])) for line in lines if line.startswith(names)))
os.kill(int(cores[0].name), signal.SIGKILL)
"""


@dataclass
class World:
    """A resource that is served, and its spec.

    `victim` is the engine that was killed, `carried` how many requests a killed process had just before.
    """

    cluster: Cluster
    spec: Json
    outage_seconds: float = OUTAGE_SECONDS
    carried: int = 0
    victim: str = ""

    async def apply(self, **changes: Any) -> None:
        """Change the resource and wait until nothing of the old spec is left."""
        await self.settled(self.change(**changes))

    def change(self, **changes: Any) -> int:
        """Change the resource: whole fields of its spec. Returns the generation."""
        self.spec = {**self.spec, **changes}
        return self.cluster.apply(self.spec)

    async def settled(self, generation: int) -> None:
        """Wait until the engines are as the spec says."""
        replicas = self.spec["replicas"]
        await self._until(lambda: self.cluster.settled(generation, replicas), f"{replicas} engines of the newest spec")

    async def gateways_settled(self) -> None:
        """Wait until the gateways are."""
        replicas = self.spec["gateway"]["replicas"]
        await self._until(lambda: self.cluster.gateways_settled(replicas), f"{replicas} gateways")

    async def _until(self, probe: Callable[[], bool], what: str) -> None:
        try:
            await until(probe, what, SETTLE_SECONDS)
        except Exception as error:
            error.add_note(await asyncio.to_thread(self.cluster.story))
            raise

    def another_round(self) -> Json:
        """The engine's part of the spec, with another environment: a new revision."""
        engine = copy.deepcopy(self.spec["engine"])
        variable = engine["env"][0]
        variable["value"] = str(int(variable["value"]) + 1)
        return {"engine": engine}


@dataclass(frozen=True)
class Scenario:
    """One disruption. `act` returns when it is over; `gpus` are left free beside those of the engines, None is all.

    A planned one may cost no request, another one those that the dying process carried. With `retry` clients try again
    where they got no connection, as OpenAI's do.
    """

    name: str
    says: str
    act: Callable[[World], Awaitable[None]]
    replicas: int = 2
    gateways: int = 1
    planned: bool = True
    retry: bool = False
    spare_gpus: int | None = None
    nodes: int = 1


async def rollout(world: World) -> None:
    """All engines are replaced."""
    await world.apply(**world.another_round())


async def scale_down(world: World) -> None:
    """Four become one."""
    await world.apply(replicas=1)


async def drain_node(world: World) -> None:
    """The node of an engine is drained, and given back."""
    [first, *_] = await asyncio.to_thread(world.cluster.serving, names.COMPONENT_ENGINE)
    node = first["spec"]["nodeName"]
    generation = world.change()
    await command("testbed/kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
    try:
        await world.settled(generation)
        await world.gateways_settled()
    finally:
        await command("testbed/kubectl", "uncordon", node)


async def kill_operator(world: World) -> None:
    """The operator is killed in the middle of a rollout."""
    generation = world.change(**world.another_round())
    await until(lambda: len(world.cluster.serving(names.COMPONENT_ENGINE)) != world.spec["replicas"], "rollout", 60)
    selector = f"{names.LABEL_NAME}={names.OPERATOR_NAME}"
    kill = ("delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=false")
    await command("testbed/kubectl", "-n", OPERATOR_NAMESPACE, *kill)
    await world.settled(generation)


async def roll_gateways(world: World) -> None:
    """Each gateway pod is deleted, one after another, as a rollout or an eviction does it."""
    for pod in await asyncio.to_thread(world.cluster.serving, names.COMPONENT_GATEWAY):
        await asyncio.to_thread(world.cluster.delete_pod, pod["metadata"]["name"])
        await world.gateways_settled()


async def stop_api(world: World) -> None:
    """The API server is away.

    The controller-manager is, too: a cluster's loses its lease meanwhile and starts anew, with patience for nodes that
    have not been able to report. The testbed's has no lease, and would take every node for lost at once.
    """
    away = ("kube-controller-manager", "kube-apiserver")
    for name in away:
        await command("testbed/component", "stop", name)
    try:
        await asyncio.sleep(world.outage_seconds)
    finally:
        for name in reversed(away):
            await command("testbed/component", "start", name)
    await world.settled(await asyncio.to_thread(world.change))


async def kill_engine(world: World) -> None:
    """The core of one engine dies."""
    [first, *_] = await asyncio.to_thread(world.cluster.serving, names.COMPONENT_ENGINE)
    world.victim = first["metadata"]["name"]
    inside = ("-n", world.cluster.namespace, "exec", world.victim, "--")
    world.carried = int(await command("testbed/kubectl", *inside, "python3", "-c", KILL_CORE))
    await until(lambda: len(world.cluster.serving(names.COMPONENT_ENGINE)) < world.spec["replicas"], "death", 60)
    await world.settled(await asyncio.to_thread(world.change))


async def kill_gateway(world: World) -> None:
    """One gateway dies with all that it carries."""
    [first, *_] = await asyncio.to_thread(world.cluster.serving, names.COMPONENT_GATEWAY)
    before = await asyncio.to_thread(world.cluster.restarts, names.COMPONENT_GATEWAY)
    inside = ("-n", world.cluster.namespace, "exec", first["metadata"]["name"], "--")
    said = await command("testbed/kubectl", *inside, "bash", "-c", KILL_GATEWAY)
    world.carried = int(said.split()[-1])
    await until(lambda: world.cluster.restarts(names.COMPONENT_GATEWAY) > before, "restart", 60)
    await world.gateways_settled()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("rollout", "3 engines are replaced, a GPU is free", rollout, replicas=3, spare_gpus=1),
        Scenario("rollout-one-gpu", "1 engine is replaced in place, no GPU is free", rollout, replicas=1, spare_gpus=0),
        Scenario("scale-down", "4 engines become 1", scale_down, replicas=4),
        Scenario("node-drain", "the node of an engine is drained", drain_node, gateways=2, nodes=2),
        Scenario("operator-killed", "the operator is killed in a rollout", kill_operator),
        Scenario("gateway-rolled", "each of 2 gateways is replaced", roll_gateways, gateways=2),
        Scenario("api-outage", "the API server is away", stop_api),
        Scenario("engine-killed", "the core of 1 of 2 engines dies", kill_engine, planned=False),
        Scenario(
            *("gateway-killed", "1 of 2 gateways dies; clients try refused connections again", kill_gateway),
            gateways=2,
            planned=False,
            retry=True,
        ),
    )
}


def spec_of(scenario: Scenario, engine: str = "0.32") -> Json:
    """The resource of a scenario: fake engines that start in 3 s, or the demo's real one."""
    common = {
        "replicas": scenario.replicas,
        "rollout": {"drainTimeout": "60s"},
        "gateway": {"replicas": scenario.gateways, "holdTimeout": "5m", "maxHeldRequests": 2000},
    }
    if engine == REAL:
        demo = yaml.safe_load((ROOT / "examples/cpu-demo.yaml").read_text())["spec"]
        return {**demo, **common, "engine": {**demo["engine"], "env": [{"name": "FAKE_ROUND", "value": "1"}]}}
    return {**common, **fake({"FAKE_ROUND": "1", "FAKE_LOAD": "3", "FAKE_TEARDOWN": "6"}, engine)}


def fake(manners: dict[str, str], version: str = "0.32", sequences: int = 128) -> Json:
    """The fields of a spec with fake engines of these manners, each with a GPU and so many sequences."""
    return {
        "image": {"reference": IMAGES[version], "pullPolicy": "Never"},
        "engine": {
            "device": "cpu",
            "maxModelLen": 4096,
            "maxNumSeqs": sequences,
            "kvCacheDtype": "auto",
            "cudaGraphMode": "NONE",
            "prefixCaching": False,
            "env": [{"name": name, "value": value} for name, value in manners.items()],
        },
        "gpu": {"count": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "startup": {"budget": "5m"},
    }


def occupant(name: str, gpus: int) -> Json:
    """A pod that takes GPUs and does nothing."""
    return {
        "metadata": {"name": name, "labels": {"load": RESOURCE}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "occupant",
                    "image": "localhost/falcon-testbed/tools:1",
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "86400"],
                    "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
