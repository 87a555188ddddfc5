"""The endpoint before the engines: what it is made of, where clients are led, and whether it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.reasons import Reason
from falcon_operator.api.spec import Spec
from falcon_operator.api.traffic import NetworkPolicy
from falcon_operator.decide import endpoint_words as words
from falcon_operator.decide.facts import Seen
from falcon_operator.decide.pods import Pod, pods_of
from falcon_operator.decide.types import ObjectRef, Snapshot
from falcon_operator.desired import disruption, network_policy, pool, route, services
from falcon_operator.desired.gateway import objects as gateway
from falcon_operator.desired.metadata import Owner


@dataclass(frozen=True)
class Endpoint:
    """The gateway beside what the spec asks for."""

    wanted: int
    pods: tuple[Pod, ...] = ()
    direct: bool = True  # the Service leads clients to engines
    complete: bool = True
    blocker: tuple[Reason, str] | None = None  # what keeps gateways from getting ready
    missing: tuple[str, ...] = ()  # sentences on APIs that are asked for and not there
    used: bool = False  # whether the spec asks for any of it
    remarks: tuple[str, ...] = ()
    suspended: bool = False

    @property
    def ready(self) -> int:
        """How many gateways take requests."""
        return sum(pod.ready for pod in self.pods)

    @property
    def open(self) -> bool:
        """Whether a client that calls the Service reaches something that answers."""
        return self.direct or self.ready > 0

    @property
    def condition(self) -> tuple[str, Reason, str] | None:
        """Status, reason and message of GatewayReady; None where there is nothing to say."""
        if not self.used:
            return None
        if self.suspended:
            return "False", Reason.SUSPENDED, "spec.suspend is true: no gateway runs. Set it to false to serve."
        count = words.count(self.ready, self.wanted)
        if self.wanted and not self.ready:
            reason, message = self.blocker or (Reason.GATEWAY_NOT_READY, words.STARTING)
            return "False", reason, " ".join((count, message, *([words.DIRECT] if self.direct else [])))
        said = [count] if self.wanted else [words.NO_GATEWAY]
        if self.missing:
            return "False", Reason.API_MISSING, " ".join((*said, *self.missing))
        if self.blocker is not None and not self.complete:
            said.append(self.blocker[1])
        return "True", Reason.GATEWAY_READY, " ".join((*said, *self.remarks))

    @property
    def gap(self) -> tuple[Reason, str] | None:
        """Why the endpoint is not what the spec asks for, if it is not."""
        found = self.condition
        return found[1:] if found is not None and found[0] == "False" else None


NONE = Endpoint(wanted=0)


def observe(spec: Spec, owner: Owner, snapshot: Snapshot) -> Endpoint:
    """The gateways and the Service as they are."""
    pods = tuple(pod for pod in pods_of(owner.uid, snapshot.gateway_pods) if pod.active)
    wanted, asked = gateway.wanted(spec), spec.gateway
    deployment = snapshot.owned.get(("Deployment", names.gateway_name(owner.name)))
    status = (deployment or {}).get("status") or {}
    ready = sum(pod.ready for pod in pods)
    secret = asked.api_keys.secret_name if asked.api_keys else None
    return Endpoint(
        wanted=wanted,
        pods=pods,
        direct=not asked.enabled or _leads_to_engines(_service(owner, snapshot)),
        complete=len(pods) == ready == wanted and status.get("updatedReplicas") in (None, wanted),
        blocker=words.blocker(deployment, pods, secret) if ready < wanted else None,
        missing=tuple(words.missing(field, kind) for field, kind in _apis(spec) if kind in snapshot.missing),
        used=asked.enabled or asked.inference_pool is not None,
        remarks=_remarks(spec, owner, snapshot),
        suspended=spec.suspend,
    )


def objects(spec: Spec, owner: Owner, config: OperatorConfig, seen: Seen, s: Snapshot, endpoint: Endpoint) -> list[Any]:
    """Everything between clients and engines, in the order in which it is to be written."""
    asked, found = spec.gateway, []
    to_gateway = asked.enabled and (endpoint.ready > 0 or not _leads_to_engines(_service(owner, s)))
    if spec.network_policy is NetworkPolicy.ENFORCE:
        # Closed only after the Service has led away from the engines, and open before it leads there.
        open_to_all = endpoint.direct or asked.inference_pool is not None
        found.append(network_policy.engines_policy(owner, config, open_to_all=open_to_all))
    # The gateways look for the engines' names as soon as they run, and would remember for a while that there are none.
    found += [services.client_service(owner, to_gateway=to_gateway), services.engines_service(owner)]
    if asked.enabled:
        remembered = per_engine(spec, owner, seen, s)
        settings = gateway.gateway_settings(spec, owner, config, remembered[1])
        found += [
            gateway.config_map(owner, settings, "/".join(map(str, remembered))),
            gateway.deployment(spec, owner, config, settings),
            disruption.gateway_budget(owner),
        ]
        if spec.network_policy is NetworkPolicy.ENFORCE:
            found.append(network_policy.gateway_policy(owner, config))
        if asked.http_route is not None and route.KIND not in s.missing:
            found.append(route.http_route(owner, asked.http_route))
    found.append(disruption.engines_budget(owner))
    if asked.inference_pool is not None and pool.KIND not in s.missing:
        found.append(pool.inference_pool(owner, asked.inference_pool))
    return found


def superfluous(wanted: list[Any], snapshot: Snapshot) -> list[ObjectRef]:
    """What an earlier spec asked for and this one does not."""
    keep = {(body["kind"], body["metadata"]["name"]) for body in wanted}
    return [
        ObjectRef(body["apiVersion"], kind, body["metadata"]["namespace"], name, body["metadata"]["uid"])
        for (kind, name), body in sorted(snapshot.owned.items())
        if (kind, name) not in keep
    ]


def _service(owner: Owner, snapshot: Snapshot) -> Mapping[str, Any] | None:
    return snapshot.services.get(names.service_name(owner.name))


def _leads_to_engines(service: Mapping[str, Any] | None) -> bool:
    """Whether the Service that is there sends clients to engines; a new one can lead to the gateways at once."""
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    return selector.get(names.LABEL_COMPONENT) == names.COMPONENT_ENGINE


def per_engine(spec: Spec, owner: Owner, seen: Seen, snapshot: Snapshot) -> tuple[int, int]:
    """How many requests an engine is asked to take at a time, and how many it is known to take.

    The fewest that a serving engine says; what was known of the same question before an operator began anew.
    """
    asked = spec.engine.max_num_seqs
    said = [f.report.max_num_seqs for f in seen.known if f.report is not None and f.report.max_num_seqs]
    if said:
        return asked, min(said)
    live = snapshot.owned.get(("ConfigMap", names.gateway_name(owner.name))) or {}
    before = ((live.get("metadata") or {}).get("annotations") or {}).get(names.ANNOTATION_PER_ENGINE, "")
    of, _, known = before.partition("/")
    return asked, int(known) if of == str(asked) and known.isdecimal() and int(known) else asked


def _apis(spec: Spec) -> list[tuple[str, str]]:
    found = []
    if spec.gateway.enabled and spec.gateway.http_route is not None:
        found.append(("spec.gateway.httpRoute", route.KIND))
    if spec.gateway.inference_pool is not None:
        found.append(("spec.gateway.inferencePool", pool.KIND))
    return found


def _remarks(spec: Spec, owner: Owner, snapshot: Snapshot) -> tuple[str, ...]:
    asked = spec.gateway.http_route
    live = snapshot.owned.get((route.KIND, names.policy_name(owner.name)))
    if asked is None or live is None:
        return ()
    said = words.route_remark(live, [parent.name for parent in asked.parent_refs])
    return (said,) if said else ()
