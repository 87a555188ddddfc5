"""What stands before the engines, who may reach them, and who reads their metrics."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, Duration, ObjectName, ShortText
from falcon_operator.api.markers import CEL, Matches

Port = Annotated[int, Field(ge=1, le=65535)]

Hostname = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches(
        r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        '{path} has "{self}", which is not a host name such as llm.example.com',
    ),
]


class NetworkPolicy(StrEnum):
    """Who may reach the engine's port."""

    ENFORCE = "Enforce"
    OFF = "Off"


class PodMonitor(StrEnum):
    """Whether Prometheus is told about the engines."""

    AUTO = "Auto"
    OFF = "Off"


class Monitoring(Base):
    """Who reads the engines' metrics."""

    pod_monitor: PodMonitor = Field(
        default=PodMonitor.AUTO,
        description="Auto makes a PodMonitor where the cluster knows that kind; Off never does.",
    )


class APIKeys(Base):
    """Keys that the gateway accepts."""

    secret_name: ObjectName = Field(description="Secret of the same namespace; each line of each entry is a key.")


class ParentRef(Base):
    """A Gateway of the same namespace."""

    name: ObjectName = Field(description="Name of the Gateway.")
    section_name: ShortText | None = Field(default=None, description="One listener of the Gateway; all where unset.")
    port: Port | None = Field(default=None, description="One port of the Gateway; all where unset.")


class HTTPRoute(Base):
    """An HTTPRoute of the Gateway API."""

    parent_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=8)] = Field(
        description="Gateways that route to the endpoint."
    )
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = Field(
        default=(), description="Host names of the endpoint; all of the Gateway's where empty."
    )


class EndpointPickerRef(Base):
    """An endpoint picker's Service in the same namespace."""

    name: ObjectName = Field(description="Name of the Service.")
    port: Port = Field(default=9002, description="Port of the Service.")


class InferencePool(Base):
    """An InferencePool of the Gateway API's inference extension."""

    endpoint_picker_ref: EndpointPickerRef = Field(description="The endpoint picker.")


class Gateway(Base):
    """The OpenAI endpoint before the engines."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "self.enabled || !has(self.httpRoute)",
            "{path}.httpRoute is set while {path}.enabled is {self.enabled}: a route needs the gateway behind it",
        ),
    )

    enabled: bool = Field(default=True, description="Whether a gateway stands before the engines.")
    replicas: Annotated[int, Field(ge=1, le=100)] = Field(default=2, description="Pods of the gateway.")
    api_keys: APIKeys | None = Field(default=None, description="Keys that the gateway accepts; no keys where unset.")
    hold_timeout: Annotated[str, Duration("0s", "1h")] = Field(
        default="10m", description="How long a request is held while no engine is ready."
    )
    max_held_requests: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=512, description="Most requests that are held at a time."
    )
    http_route: HTTPRoute | None = Field(default=None, description="An HTTPRoute to the endpoint.")
    inference_pool: InferencePool | None = Field(
        default=None, description="An InferencePool over the engines, whose port is then open to all."
    )
