"""From the cache to what a decision is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.types import EngineFacts, Snapshot
from falcon_operator.kube.apply import controller_uid
from falcon_operator.kube.resources import CLAIM, CONTROLLER_REVISION, DEPLOYMENT, EXTENSIONS, JOB, POD, SERVICE
from falcon_operator.runtime.cache import Cache, Key


def snapshot_of(
    cache: Cache,
    key: Key,
    resource: Mapping[str, Any],
    engines: Mapping[str, EngineFacts],
    refused: Mapping[str, str],
    nodes: NodeIndex | None,
) -> Snapshot:
    """One resource with what belongs to this incarnation of it; remains of an earlier one are left out."""
    uid = resource["metadata"]["uid"]
    deployment: Mapping[str, Any] | None = None
    services: dict[str, Mapping[str, Any]] = {}
    claims: dict[str, Mapping[str, Any]] = {}
    revisions: list[Mapping[str, Any]] = []
    pods: list[Mapping[str, Any]] = []
    by_component: dict[str, list[Mapping[str, Any]]] = {names.COMPONENT_GATEWAY: [], names.COMPONENT_QUANTIZER: []}
    jobs: dict[str, Mapping[str, Any]] = {}
    owned: dict[tuple[str, str], Mapping[str, Any]] = {}
    for kind, body in cache.children(key):
        name = body["metadata"]["name"]
        if kind is POD:
            # A pod is controlled by its ReplicaSet; the template's label says whose it is.
            labels = body["metadata"]["labels"]
            if labels.get(names.LABEL_UID, uid) == uid:
                by_component.get(labels.get(names.LABEL_COMPONENT), pods).append(body)
        elif controller_uid(body) != uid:
            continue
        elif kind is DEPLOYMENT and name == names.deployment_name(key[1]):
            deployment = body
        elif kind is SERVICE:
            services[name] = body
        elif kind is CONTROLLER_REVISION:
            revisions.append(body)
        elif kind is CLAIM:
            claims[name] = body
        elif kind is JOB:
            jobs[name] = body
        else:
            owned[kind.kind, name] = body
    pods.sort(key=lambda pod: pod["metadata"]["name"])
    revisions.sort(key=lambda revision: (revision.get("revision", 0), revision["metadata"]["name"]))
    return Snapshot(
        resource=resource,
        deployment=deployment,
        services=services,
        revisions=tuple(revisions),
        pods=tuple(pods),
        gateway_pods=tuple(by_component[names.COMPONENT_GATEWAY]),
        jobs=jobs,
        quantizer_pods=tuple(by_component[names.COMPONENT_QUANTIZER]),
        owned=owned,
        missing=frozenset(kind.kind for kind in cache.refused & EXTENSIONS),
        claims=claims,
        launchers=cache.launchers(key[0]),
        engines=engines,
        refused=refused,
        nodes=nodes,
    )
