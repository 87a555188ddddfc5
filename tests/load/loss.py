"""One scenario under load, and what it cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.load.clients import Clients
from tests.load.cluster import GPU, Cluster, NotInTimeError, until
from tests.load.scenarios import Scenario, World, occupant, spec_of

Json = dict[str, Any]
# Streams that last as long as a drain does, and short ones, which are many.
LONG: Json = {"clients": 60, "ramp": 4.0, "ask": {"tokens": 80, "pace": 0.1}}
SHORT: Json = {"clients": 60, "ramp": 2.0, "ask": {"tokens": 5, "pace": 0.02}}
# What the real engine on CPU can do.
REAL_LONG: Json = {"clients": 2, "ramp": 1.0, "ask": {"tokens": 64, "numbered": False}}
REAL_SHORT: Json = {"clients": 2, "ramp": 1.0, "ask": {"tokens": 4, "numbered": False}}
BEFORE_SECONDS = AFTER_SECONDS = 5.0


@dataclass
class Row:
    """What one scenario cost. `may_lose` is 0 for a planned one, and else what the dead process carried.

    Where that was an engine, `victim`, its losses are told by its name: a request that came between the count and the
    kill is its own, too.
    """

    scenario: Scenario
    tally: Json
    seconds: float
    may_lose: int = 0
    victim: str = ""

    @property
    def lost(self) -> int:
        """Requests that did not come whole and right."""
        lost: int = self.tally["failed"] + self.tally["truncated"]
        return lost

    @property
    def met(self) -> bool:
        """Whether it cost no more than it may."""
        may = self.tally["lost"].get(self.victim, 0) if self.victim else self.may_lose
        return self.lost <= may and self.tally["requests"] > 0


@dataclass(frozen=True)
class Options:
    """How a scenario is run: at least so many requests, against these engines."""

    requests: int = 15_000
    engine: str = "0.32"
    outage_seconds: float = 120.0
    long: Json = field(default_factory=lambda: LONG)
    short: Json = field(default_factory=lambda: SHORT)


async def run(client: httpx.Client, scenario: Scenario, options: Options) -> Row:
    """Serve a resource, let clients stream, disturb it, and wait for the last stream."""
    cluster = Cluster(client)
    cluster.open()
    try:
        world = World(cluster, spec_of(scenario, options.engine), options.outage_seconds)
        generation = cluster.apply(world.spec)
        await world.settled(generation)
        await world.gateways_settled()
        await _occupy(client, cluster, scenario)
        return await _disturb(world, scenario, options)
    finally:
        cluster.close()
        try:
            await until(lambda: not _pods(client, cluster.namespace), "end of the pods", 240)
        except NotInTimeError as error:
            error.add_note(await asyncio.to_thread(cluster.story))
            raise


async def _disturb(world: World, scenario: Scenario, options: Options) -> Row:
    begun = time.monotonic()
    address = await asyncio.to_thread(world.cluster.address)
    groups = [{**group, "retry": scenario.retry} for group in (options.long, options.short)]
    clients = await Clients.begin([address], *groups, least=options.requests)
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        await scenario.act(world)
        await asyncio.sleep(AFTER_SECONDS)
        clients.stop()
        tally = await clients.end()
    finally:
        clients.kill()
    return Row(scenario, tally, time.monotonic() - begun, world.carried, world.victim)


async def _occupy(client: httpx.Client, cluster: Cluster, scenario: Scenario) -> None:
    """Leave as few GPUs free as the scenario wants."""
    if scenario.spare_gpus is None:
        return
    for node, free in _free_gpus(client).items():
        taken = max(0, free - scenario.spare_gpus)
        if taken:
            cluster.create_pod(occupant(f"occupant-{node}", taken))

    def placed() -> bool:
        pods = _pods(client, cluster.namespace)
        return all(pod["status"].get("phase") == "Running" for pod in pods)

    await until(placed, "occupant of the other GPUs", 60)


def _free_gpus(client: httpx.Client) -> dict[str, int]:
    """GPUs of each real node that no pod has asked for."""
    nodes = client.get("/api/v1/nodes").raise_for_status().json()["items"]
    free = {
        node["metadata"]["name"]: int(node["status"].get("allocatable", {}).get(GPU, "0"))
        for node in nodes
        if not any(key.startswith("kwok") for key in node["metadata"].get("annotations", {}))
    }
    for pod in client.get("/api/v1/pods").raise_for_status().json()["items"]:
        node = pod["spec"].get("nodeName")
        if node in free and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            limits = (c.get("resources", {}).get("limits", {}) for c in pod["spec"]["containers"])
            free[node] -= sum(int(limit.get(GPU, "0")) for limit in limits)
    return free


def _pods(client: httpx.Client, namespace: str) -> list[Json]:
    found: list[Json] = client.get(f"/api/v1/namespaces/{namespace}/pods").raise_for_status().json()["items"]
    return found


def table(rows: list[Row]) -> Iterator[str]:
    """The rows as text, with their sum."""
    head = ("scenario", "requests", "ok", "failed", "truncated", "held longest", "first p50", "p99", "took", "")
    form = "{:<16} {:>9} {:>9} {:>7} {:>9} {:>12} {:>10} {:>8} {:>7}  {}"
    yield form.format(*head)
    for row in rows:
        t = row.tally
        times = [f"{t[key]:.2f} s" if t[key] is not None else "-" for key in ("first_max", "first_p50", "first_p99")]
        said = "met" if row.met else "MISSED"
        if not row.scenario.planned:
            own = f", {t['lost'].get(row.victim, 0)} of them its own" if row.victim else ""
            said += f": lost {row.lost}{own}, of {row.may_lose} that it carried just before"
        counts = (t["requests"], t["ok"], t["failed"], t["truncated"])
        yield form.format(row.scenario.name, *counts, *times, f"{row.seconds:.0f} s", said)
        for example in t["examples"] if row.lost else ():
            yield f"    {example}"
    planned = [row for row in rows if row.scenario.planned]
    lost, requests = sum(row.lost for row in planned), sum(row.tally["requests"] for row in planned)
    took = sum(row.seconds for row in rows)
    yield f"planned disruptions: {requests:,} requests, {lost} lost, in {took:.0f} s"
