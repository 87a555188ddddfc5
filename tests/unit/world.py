"""A cluster in a few dictionaries: it takes plans as the API server would, and makes pods as a Deployment would."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from falcon_engine.signatures import Diagnosis
from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import EngineFacts, Event, Launcher, Plan, Renderer, Scaling, Snapshot

Json = dict[str, Any]
T = TypeVar("T")

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
UID = "5d0c7c9e-0000-4000-8000-000000000001"
SERVED = "falcon-h1r-7b-nvfp4"
GATEWAY_IMAGE = "docker.io/mutazai/falcon-gateway:1"
ELSEWHERE = (
    "Service",
    "ControllerRevision",
    "PersistentVolumeClaim",
    "Job",
)  # what a snapshot has places of its own for


def copied(value: T) -> T:
    """A deep copy; `copy.deepcopy` takes four times as long, which was most of what these tests took."""
    same: T = pickle.loads(pickle.dumps(value))
    return same


def at(seconds: float) -> str:
    """A timestamp so many seconds after NOW."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def renderer(launcher: str = "1", config: OperatorConfig | None = None) -> Renderer:
    return Renderer(
        config or OperatorConfig(gateway_image=GATEWAY_IMAGE),
        Launcher(names.launcher_name(f"{launcher:0>10}"), launcher.encode()),
    )


def diagnosis(reason: str, message: str, hint: str, exit_code: int, version: str | None = None) -> str:
    return Diagnosis(reason, message, hint, exit_code, version, ("last line",)).to_json()


@dataclass
class World:
    """One resource and what is there of it."""

    spec: Json = field(default_factory=dict)
    renderer: Renderer = field(default_factory=renderer)
    now: datetime = NOW
    generation: int = 1
    status: Json = field(default_factory=dict)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    pods: list[Json] = field(default_factory=list)  # of engines
    gateway_pods: list[Json] = field(default_factory=list)
    quantizer_pods: list[Json] = field(default_factory=list)
    missing: frozenset[str] = frozenset()  # kinds that the API server does not know
    engines: dict[str, EngineFacts] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    nodes: NodeIndex | None = None  # None: may not be read
    scaling: Scaling | None = None  # what the autoscaler has decided; None: nothing yet
    made: int = 0

    def change(self, spec: Json) -> None:
        """The user applies another spec."""
        self.spec, self.generation = spec, self.generation + 1

    def resource(self) -> Json:
        metadata = {"name": "demo", "namespace": "team", "uid": UID, "generation": self.generation}
        found = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": self.spec}
        return copied(found | ({"status": self.status} if self.status else {}))

    def of_kind(self, kind: str) -> dict[str, Json]:
        return {name: body for (k, name), body in self.objects.items() if k == kind}

    @property
    def deployment(self) -> Json | None:
        return self.objects.get(("Deployment", "demo"))

    def template(self) -> Json:
        assert self.deployment is not None
        found: Json = self.deployment["spec"]["template"]
        return found

    def engine(self) -> Json:
        found: Json = self.template()["spec"]["containers"][0]
        return found

    def snapshot(self) -> Snapshot:
        return Snapshot(
            resource=self.resource(),
            deployment=copied(self.deployment),
            services=self.of_kind("Service"),
            revisions=tuple(self.of_kind("ControllerRevision").values()),
            pods=tuple(copied(self.pods)),
            claims=self.of_kind("PersistentVolumeClaim"),
            launchers=frozenset(name for name in self.of_kind("ConfigMap") if name.startswith("falcon-launcher-")),
            gateway_pods=tuple(copied(self.gateway_pods)),
            jobs=copied(self.of_kind("Job")),
            quantizer_pods=tuple(copied(self.quantizer_pods)),
            owned={
                key: body
                for key, body in self.objects.items()
                if key[0] not in ELSEWHERE and key != ("Deployment", "demo") and body["metadata"].get("ownerReferences")
            },
            missing=self.missing,
            engines=dict(self.engines),
            refused=dict(self.refused),
            nodes=self.nodes,
            scaling=self.scaling,
        )

    def plan(self) -> Plan:
        return decide(self.snapshot(), self.renderer, self.now)

    def step(self, seconds: float = 10) -> Plan:
        """Time passes, then one plan is made and carried out."""
        self.now += timedelta(seconds=seconds)
        plan = self.plan()
        for body in plan.apply:
            key = body["kind"], body["metadata"]["name"]
            if "/".join(key) in self.refused:
                continue
            before = self.objects.get(key, {})
            kept = {k: v for k, v in before.items() if k == "status"}
            uid = before.get("metadata", {}).get("uid") or f"uid-{key[0]}-{key[1]}"
            self.objects[key] = {
                **copied(body),
                **kept,
                "metadata": {**copied(body["metadata"]), "uid": uid},
            }
        for reference in plan.delete:
            live = self.objects[reference.kind, reference.name]
            assert live["metadata"]["uid"] == reference.uid
            del self.objects[reference.kind, reference.name]
            self.quantizer_pods = [p for p in self.quantizer_pods if owner_uid(p) != reference.uid]
        self.status = copied(plan.status)
        self.events += plan.events
        return plan

    def settle(self, limit: int = 5) -> None:
        """Step until a step changes nothing."""
        for _ in range(limit):
            before = copied((self.objects, self.status, self.pods))
            self.step()
            if before == (self.objects, self.status, self.pods):
                return
        raise AssertionError(f"no rest after {limit} steps")

    def condition(self, kind: str) -> Json:
        found: Json = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found

    def state(self, kind: str) -> tuple[str, str]:
        condition = self.condition(kind)
        return condition["status"], condition["reason"]

    # What the cluster does.

    def add_pod(self, **changes: Any) -> Json:
        """A pod of the Deployment's template that the scheduler has not seen yet."""
        self.made += 1
        metadata = {
            "name": f"demo-{self.made}",
            "uid": f"pod-{self.made}",
            "labels": dict(self.template()["metadata"]["labels"]),
            "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        containers = [{"name": "engine", "image": self.engine()["image"], "resources": self.engine()["resources"]}]
        pod = {"metadata": metadata, "spec": {"containers": containers}, "status": {"phase": "Pending"}, **changes}
        self.pods.append(pod)
        return pod

    def add_gateway_pod(self) -> Json:
        """A pod of the gateway's template that the scheduler has not seen yet."""
        template = self.objects["Deployment", "demo-gateway"]["spec"]["template"]
        number = len(self.gateway_pods) + 1
        metadata = {
            "name": f"demo-gateway-{number}",
            "uid": f"gateway-pod-{number}",
            "labels": dict(template["metadata"]["labels"]),
            "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        containers = [{"name": "gateway", "image": template["spec"]["containers"][0]["image"]}]
        pod = {"metadata": metadata, "spec": {"containers": containers}, "status": {"phase": "Pending"}}
        self.gateway_pods.append(pod)
        return pod

    def job(self) -> Json:
        """The one Job that quantizes."""
        (found,) = self.of_kind("Job").values()
        return found

    def add_quantizer_pod(self) -> Json:
        """A pod of the Job that the scheduler has not seen yet."""
        job, number = self.job(), len(self.quantizer_pods) + 1
        job["status"] = {"startTime": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"), **job.get("status", {})}
        template = job["spec"]["template"]
        metadata = {
            "name": f"{job['metadata']['name']}-{number}",
            "uid": f"quantizer-pod-{number}",
            "labels": dict(template["metadata"]["labels"]),
            "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
        }
        containers = [{"name": "quantize", "image": template["spec"]["containers"][0]["image"]}]
        pod = {"metadata": metadata, "spec": {"containers": containers}, "status": {"phase": "Pending"}}
        self.quantizer_pods.append(pod)
        return pod

    def end_job(self, kind: str = "Complete", **condition: Any) -> None:
        """The Job's controller has seen its last pod."""
        when = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        found = {"type": kind, "status": "True", "lastTransitionTime": when, **condition}
        self.job().setdefault("status", {})["conditions"] = [found]

    def quantize(self) -> None:
        """The Job's work, all at once."""
        if self.of_kind("Job"):
            self.end_job()
            self.step()

    def roll_gateway(self) -> None:
        """Exactly the wanted gateways, running and ready."""
        deployment = self.objects.get(("Deployment", "demo-gateway"))
        wanted = deployment["spec"]["replicas"] if deployment else 0
        del self.gateway_pods[wanted:]
        while len(self.gateway_pods) < wanted:
            self.add_gateway_pod()
        for pod in self.gateway_pods:
            make_ready(pod, self.now)

    def roll(self) -> None:
        """The Deployments' and the scheduler's work, all at once: exactly the wanted pods, running and ready."""
        self.roll_gateway()
        assert self.deployment is not None
        revision = self.template()["metadata"]["labels"][names.LABEL_REVISION]
        self.pods = [p for p in self.pods if p["metadata"]["labels"][names.LABEL_REVISION] == revision]
        wanted = self.deployment["spec"]["replicas"]
        del self.pods[wanted:]
        while len(self.pods) < wanted:
            self.add_pod()
        for pod in self.pods:
            make_ready(pod, self.now)

    def answer(self, *served: str, version: str | None = "0.33.0", length: int | None = 65536) -> None:
        """Every ready pod says what it serves."""
        for pod in self.pods:
            uid = pod["metadata"]["uid"]
            restarts = pod["status"].get("containerStatuses", [{}])[0].get("restartCount", 0)
            self.engines[uid] = EngineFacts(uid, served or (SERVED,), length, version, None, restarts=restarts)

    def serve(self) -> "World":
        """All the way to Ready."""
        self.step()
        self.quantize()
        self.roll()
        self.step()
        self.answer(*self.spec.get("model", {}).get("names", [SERVED]))
        self.settle()
        return self


def owner_uid(pod: Json) -> str | None:
    return next((r["uid"] for r in pod["metadata"].get("ownerReferences", ())), None)


def conditions(**reasons: tuple[str, str, str]) -> list[Json]:
    """Pod conditions: type=(status, reason, lastTransitionTime)."""
    return [
        {"type": kind, "status": status, "reason": reason, "lastTransitionTime": time}
        for kind, (status, reason, time) in reasons.items()
    ]


def schedule(pod: Json, when: str, node: str = "node-1") -> None:
    pod["spec"]["nodeName"] = node
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", when))


def container(pod: Json, state: Json, last: Json | None = None, restarts: int = 0, started: bool = False) -> None:
    pod["status"]["containerStatuses"] = [
        {
            "name": pod["spec"]["containers"][0]["name"],
            "image": pod["spec"]["containers"][0]["image"],
            "state": state,
            "lastState": last or {},
            "restartCount": restarts,
            "started": started,
            "ready": started,
        }
    ]


def make_ready(pod: Json, now: datetime, last: Json | None = None, restarts: int = 0) -> None:
    """Running, started and ready; a pod that is ready already stays as it is."""
    if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])):
        return
    when = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    pod["spec"]["nodeName"] = "node-1"
    pod["status"]["phase"] = "Running"
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", when), Ready=("True", "", when))
    container(pod, {"running": {"startedAt": when}}, last, restarts, started=True)


def terminated(code: int, message: str = "", reason: str = "Error", begin: float = 0, end: float = 20) -> Json:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": at(begin),
            "finishedAt": at(end),
        }
    }


def crash_loop(pod: Json, last: Mapping[str, Any], restarts: int = 1) -> None:
    """The kubelet waits before it starts the container again."""
    message = f"back-off {10 * restarts}s restarting failed container=engine"
    container(pod, {"waiting": {"reason": "CrashLoopBackOff", "message": message}}, dict(last), restarts)
