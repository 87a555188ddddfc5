"""The desired state of a resource."""

from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.autoscaling import Autoscaling
from falcon_operator.api.base import Base
from falcon_operator.api.engine import Device, Engine
from falcon_operator.api.gpu import GPU
from falcon_operator.api.lifecycle import Fit, Rollout, Startup, UpdatePolicy
from falcon_operator.api.markers import CEL
from falcon_operator.api.model import Image, Model
from falcon_operator.api.pod import PodMetadata, Resources, Security
from falcon_operator.api.scheduling import Scheduling
from falcon_operator.api.storage import Storage
from falcon_operator.api.traffic import Gateway, Monitoring, NetworkPolicy


class Spec(Base):
    """The desired state. Everything is optional: `spec: {}` serves Falcon-H1R-7B with the model card's settings."""

    # The guards with has() are for the API server: it tries the rules on the default `{}` itself, where nothing is set.
    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!has(self.autoscaling) || self.autoscaling.minReplicas > 0 || !has(self.gateway) || self.gateway.enabled",
            "autoscaling.minReplicas is {self.autoscaling.minReplicas} while gateway.enabled is {self.gateway.enabled}:"
            " only the gateway can hold requests while no engine runs, so enable it or keep one replica",
        ),
        CEL(
            "!has(self.gpu) || !has(self.gpu.count) || self.gpu.count > 0"
            " || !has(self.engine) || self.engine.device == 'cpu'",
            "gpu.count is {self.gpu.count} while engine.device is {self.engine.device}: "
            "ask for at least one GPU, or set engine.device to cpu",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1,
        description="Engine pods. Ignored while autoscaling.mode is Native; written through the scale subresource by "
        "an HPA or KEDA while it is External.",
    )
    suspend: bool = Field(default=False, description="Run no pods and keep everything else.")
    image: Image = Field(default_factory=Image, description="The serving image.")
    model: Model = Field(default_factory=Model, description="What is served, and from where.")
    engine: Engine = Field(default_factory=Engine, description="How vLLM is run.")
    gpu: GPU = Field(default_factory=GPU, description="What the engine needs of a GPU.")
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where pods go.")
    resources: Resources = Field(default_factory=Resources, description="CPU and memory of the engine.")
    fit: Fit = Field(
        default=Fit.CLAMP,
        description="Where the GPU holds fewer sequences than engine.maxNumSeqs: Clamp lowers it and says so, "
        "Refuse sets Stalled.",
    )
    startup: Startup = Field(default_factory=Startup, description="What a pod must do before it is ready.")
    cache: Storage = Field(
        default_factory=Storage, description="Where compiled kernels are kept; with the pod where empty."
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How pods are replaced.")
    update_policy: UpdatePolicy = Field(
        default=UpdatePolicy.MANUAL,
        description="When a new operator's defaults and renderer are taken over: Manual waits for a change of the "
        "spec or `kubectl falcon adopt`, Auto does it when the operator is upgraded.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Who changes the number of replicas; nobody where unset."
    )
    gateway: Gateway = Field(default_factory=Gateway, description="The OpenAI endpoint before the engines.")
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy.ENFORCE,
        description="Enforce: only the gateway, the operator and monitoring reach the engine's port. Off: all do.",
    )
    monitoring: Monitoring = Field(default_factory=Monitoring, description="Who reads the engines' metrics.")
    security: Security = Field(default_factory=Security, description="The user that the engine runs as.")
    pod_metadata: PodMetadata = Field(
        default_factory=PodMetadata, description="More labels and annotations of the pods."
    )

    @property
    def most_replicas(self) -> int:
        """As many engines as there may be without a change of the spec by a person."""
        most = self.autoscaling.max_replicas if self.autoscaling is not None else None
        return self.replicas if most is None else most

    @property
    def effective_gpu_count(self) -> int:
        """GPUs that a pod asks for as an extended resource: none where claims ask for them."""
        if self.gpu.claims:
            return 0
        if self.gpu.count is not None:
            return self.gpu.count
        return 0 if self.engine.device is Device.CPU else 1
