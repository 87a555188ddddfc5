"""The run itself, from the first resource to the restart."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp

from benchmarks.reconcile import audit
from benchmarks.reconcile.lab import ACCOUNT, Lab, resource
from benchmarks.reconcile.operator_process import OperatorProcess
from benchmarks.reconcile.watching import Moments
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import Snapshot
from falcon_operator.kube.connection import Connection
from falcon_operator.kube.resources import FALCON, resource_of
from falcon_operator.launcher import make_renderer

SMALL = 10  # resources at which memory has a target
READY_SECONDS = 120.0
ALL_READY_SECONDS = 900.0
QUIET_SECONDS = 10.0
NODE_CHANGES = 6
TOLD_SECONDS = 30.0
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    singles: int
    count: int
    in_flight: int
    idle: float


class Run:
    """One run on one cluster."""

    def __init__(self, lab: Lab, connection: Connection, folder: Path, options: Options) -> None:
        self._lab, self._connection, self._folder, self._options = lab, connection, folder, options
        self._numbers: Numbers = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "options": vars(options) | {},
        }

    async def all(self) -> Numbers:
        """Everything, in the order that disturbs least."""
        self._say("the raw writer")
        self._numbers["raw"] = await self._raw()
        with self._lab.namespace("bench") as namespace:
            account = self._lab.service_account(namespace, self._folder / "account")
            log = audit.AuditLog(namespace, f"system:serviceaccount:{namespace}:{ACCOUNT}")
            async with self._connection.session() as session:
                moments = Moments(self._connection, session, namespace)
                watch = asyncio.create_task(moments.watch())
                try:
                    await self._with_operator(namespace, account, log, session, moments)
                finally:
                    watch.cancel()
        self._numbers["load_after"] = round(os.getloadavg()[0], 2)
        return self._numbers

    async def _with_operator(
        self, namespace: str, account: Path, log: audit.AuditLog, session: aiohttp.ClientSession, moments: Moments
    ) -> None:
        operator = self._start(namespace, account)
        try:
            self._numbers["memory_empty_mb"] = operator.memory()
            self._say(f"{self._options.singles} resources, one after another")
            await self._singles(namespace, session, moments, operator, log)
            self._say(f"{NODE_CHANGES} changes of a node, which all {self._options.singles} resources tell")
            await self._node_changes(moments, log)
            self._say(f"{self._options.count} resources at once")
            await self._burst(namespace, session, moments, operator, log)
            self._say(f"{self._options.idle:.0f} s of quiet")
            await self._quiet(log)
            before = len(log.writes())
            await asyncio.sleep(self._options.idle)
            self._numbers["idle_writes"] = len(log.writes()) - before
            self._say("a restart")
            operator.kill()
            before = len(log.writes())
            operator = self._start(namespace, account)
            await asyncio.sleep(self._options.idle / 4)
            self._numbers["restart_writes"] = len(log.writes()) - before
            self._numbers["restart_memory_mb"] = operator.memory()
        finally:
            operator.kill()

    def _start(self, namespace: str, account: Path) -> OperatorProcess:
        operator = OperatorProcess(
            self._connection.server, account, namespace, self._options.in_flight, self._folder / "operator.log"
        )
        self._numbers.setdefault("synced_seconds", []).append(round(operator.wait_synced(), 2))
        return operator

    async def _singles(
        self,
        namespace: str,
        session: aiohttp.ClientSession,
        moments: Moments,
        operator: OperatorProcess,
        log: audit.AuditLog,
    ) -> None:
        everybody = audit.AuditLog(namespace)
        latencies: list[float] = []
        to_ready: list[float] = []
        made = [f"single-{number}" for number in range(self._options.singles)]
        for number, name in enumerate(made, 1):
            begin = time.monotonic()
            await self._create(session, name, namespace)
            await moments.until(lambda name=name: name in moments.ready, READY_SECONDS)  # type: ignore[misc]
            latencies.append((moments.deployed[name] - begin) * 1000)
            to_ready.append(moments.ready[name] - begin)
            if number == SMALL:
                self._numbers["memory_small_mb"] = operator.memory()
        await self._quiet(log)
        writes = audit.until_ready(log.writes(), moments.ready_on_the_wall(made))
        self._numbers["single"] = {
            "deployment_ms": _spread(list(audit.latencies(log.writes(), everybody.writes()).values())),
            "deployment_seen_ms": _spread(latencies),
            "ready_s": _spread(to_ready),
            "objects": max(w.objects for w in writes),
            "writes_beyond_max": max(w.beyond for w in writes),
            "writes_by_kind": audit.by_kind(log.writes()),
        }

    async def _node_changes(self, moments: Moments, log: audit.AuditLog) -> None:
        """A node's GPU becomes too small, and large enough again: from the label's change to each resource's status."""
        seconds: list[float] = []
        others = max(count for count, _ in moments.refused.values())  # nodes that are not the benchmark's
        for number in range(NODE_CHANGES):
            small = number % 2 == 0
            refused, begin = others + small, time.monotonic()
            self._lab.gpu_memory("1024" if small else None)
            await moments.until(lambda n=refused: all(c == n for c, _ in moments.refused.values()), TOLD_SECONDS)  # type: ignore[misc]
            seconds += [since - begin for _, since in moments.refused.values()]
            await self._quiet(log)
        self._numbers["node_change_s"] = _spread(seconds)

    async def _burst(
        self,
        namespace: str,
        session: aiohttp.ClientSession,
        moments: Moments,
        operator: OperatorProcess,
        log: audit.AuditLog,
    ) -> None:
        names = [f"burst-{number}" for number in range(self._options.count)]
        first, cpu, begin = len(log.writes()), operator.cpu(), time.monotonic()
        todo = iter(names)
        posted: dict[str, float] = {}

        async def client() -> None:
            for name in todo:
                posted[name] = time.monotonic()
                await self._create(session, name, namespace)

        await asyncio.gather(*(client() for _ in range(self._options.in_flight)))
        applied = time.monotonic() - begin
        await moments.until(lambda: all(name in moments.deployed for name in names), READY_SECONDS)
        last = max(moments.deployed[name] for name in names) - begin
        used = operator.cpu() - cpu
        self._say(f"last Deployment after {last:.1f} s; now until all are Ready")
        await moments.until(lambda: all(name in moments.ready for name in names), ALL_READY_SECONDS)
        await self._quiet(log)
        entries = log.writes()[first:]
        writes = audit.until_ready(entries, moments.ready_on_the_wall(names))
        self._numbers["burst"] = {
            "applied_s": applied,
            "last_deployment_s": last,
            "ratio_to_raw": last / self._numbers["raw"]["object"],
            "deployment_s": _spread([moments.deployed[name] - posted[name] for name in names]),
            "all_ready_s": max(moments.ready[name] for name in names) - begin,
            "operator_cpu_s": used,
            "writes_beyond_max": max(w.beyond for w in writes),
            "writes_beyond_mean": sum(w.beyond for w in writes) / len(writes),
            "writes_by_kind": audit.by_kind(entries),
        }
        self._numbers["memory_large_mb"] = operator.memory()

    async def _raw(self) -> Numbers:
        """The same objects without an operator, in a process of its own."""
        with self._lab.namespace("bench-raw", wait=True) as namespace:
            file = self._folder / "objects.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in self._rendered(namespace)))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.reconcile.raw", str(file), str(self._options.in_flight),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await process.communicate()
            if process.returncode:
                raise RuntimeError("the raw writer failed")
            found: Numbers = json.loads(output)
            return found

    def _rendered(self, namespace: str) -> Iterator[tuple[str, Any]]:
        renderer = make_renderer(OperatorConfig())
        for number in range(self._options.count):
            body = resource(f"raw-{number}", namespace)
            body["metadata"] |= {"uid": f"00000000-0000-0000-0000-{number:012}", "generation": 1}
            snapshot = Snapshot(resource=body, launchers=frozenset({renderer.launcher.name}))
            for made in decide(snapshot, renderer, datetime.now(UTC)).apply:
                # Without their owner, which is not there: the garbage collector would take them.
                metadata = {key: value for key, value in made["metadata"].items() if key != "ownerReferences"}
                yield resource_of(made).path(namespace, metadata["name"]), {**made, "metadata": metadata}

    async def _create(self, session: aiohttp.ClientSession, name: str, namespace: str) -> None:
        url = self._connection.server + FALCON.path(namespace)
        async with session.post(url, json=resource(name, namespace)) as answer:
            await answer.read()
            answer.raise_for_status()

    async def _quiet(self, log: audit.AuditLog) -> None:
        """Wait until nothing has been written for a while."""
        count, since = len(log.writes()), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(1)
            if len(log.writes()) != count:
                count, since = len(log.writes()), time.monotonic()

    @staticmethod
    def _say(text: str) -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _spread(values: list[float]) -> Numbers:
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {
        "p50": round(cuts[49], 3),
        "p90": round(cuts[89], 3),
        "p99": round(cuts[98], 3),
        "max": round(max(values), 3),
    }
