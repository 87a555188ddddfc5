"""The kinds that the operator reads and writes, and where the API server keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names


@dataclass(frozen=True)
class Resource:
    """One kind of object: enough to make its URL."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version within the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path below the API server's address; without a namespace, that of all namespaces."""
        parts = ["apis" if self.group else "api", self.api_version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(parts)


FALCON = Resource(names.API_VERSION, names.KIND, names.PLURAL)
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
CONTROLLER_REVISION = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
SERVICE = Resource("v1", "Service", "services")
CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps")
POD = Resource("v1", "Pod", "pods")
JOB = Resource("batch/v1", "Job", "jobs")
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Resource("v1", "Event", "events")
NODE = Resource("v1", "Node", "nodes", namespaced=False)
DISRUPTION_BUDGET = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
HTTP_ROUTE = Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
INFERENCE_POOL = Resource("inference.networking.k8s.io/v1", "InferencePool", "inferencepools")

# What is watched, and with which server-side selector: of other people's objects only what carries our label.
OURS = f"{names.LABEL_MANAGED_BY}={names.OPERATOR_NAME}"
WATCHED: Mapping[Resource, str | None] = {
    FALCON: None,
    DEPLOYMENT: OURS,
    SERVICE: OURS,
    CONTROLLER_REVISION: OURS,
    CONFIG_MAP: OURS,
    POD: OURS,
    CLAIM: OURS,
    JOB: OURS,
    DISRUPTION_BUDGET: OURS,
    NETWORK_POLICY: OURS,
    HTTP_ROUTE: OURS,
    INFERENCE_POOL: OURS,
    NODE: None,
}
# What the operator can do without: where it may not be read, that is said and everything else goes on.
OPTIONAL: frozenset[Resource] = frozenset({NODE, HTTP_ROUTE, INFERENCE_POOL})
# Kinds that come with something to be installed.
EXTENSIONS: frozenset[Resource] = frozenset({HTTP_ROUTE, INFERENCE_POOL})
BY_KIND: Mapping[str, Resource] = {resource.kind: resource for resource in WATCHED}


def is_launcher(body: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap is a launcher, which all resources of a namespace share."""
    return names.LABEL_LAUNCHER in (body["metadata"].get("labels") or {})


def resource_of(body: Mapping[str, Any]) -> Resource:
    """The kind of an object that the operator knows."""
    resource = BY_KIND[body["kind"]]
    if resource.api_version != body["apiVersion"]:
        raise ValueError(f"{body['kind']} is known as {resource.api_version}, not as {body['apiVersion']}")
    return resource
