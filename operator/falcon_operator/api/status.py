"""The observed state of a resource. Nothing here changes with every request."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from falcon_operator.api.base import Base
from falcon_operator.api.markers import ListMap
from falcon_operator.api.reasons import ConditionType, Reason

Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(max_length=253)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class Condition(Base):
    """One aspect of the state, as in metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)] = Field(description="The aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: Count | None = Field(default=None, description="Generation of the spec that was looked at.")
    last_transition_time: datetime = Field(description="When the status last changed.")
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = Field(description="Why, in one CamelCase word.")
    message: Annotated[str, Field(max_length=32768)] = Field(description="Why, in a sentence.")


class ServedModel(Base):
    """What the engine says that it serves."""

    name: Name | None = Field(default=None, description="Canonical name.")
    max_model_len: Count | None = Field(default=None, description="Most tokens of one sequence.")


class CapacityFigures(Base):
    """What one engine holds."""

    blocks: Count | None = Field(default=None, description="Blocks of KV cache.")
    block_tokens: Count | None = Field(default=None, description="Tokens of one block.")
    tokens: Count | None = Field(default=None, description="Tokens in all blocks.")
    sequences: Count | None = Field(default=None, description="Sequences of full length at a time.")


class Capacity(Base):
    """What one engine holds on one GPU product."""

    product: Name = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    predicted: CapacityFigures | None = Field(default=None, description="As computed before the start.")
    measured: CapacityFigures | None = Field(default=None, description="As the engine reported.")


class ObservedEngine(Base):
    """The engine as seen."""

    version: Name | None = Field(default=None, description="vLLM's version.")
    nvfp4_kernel: Name | None = Field(
        default=None, alias="nvfp4Kernel", description="Kernel of the NVFP4 multiplications."
    )
    attention_backend: Name | None = Field(default=None, description="Backend of attention.")


class ColdStart(Base):
    """Seconds from the pod's creation to each step of its last start."""

    scheduled: Seconds | None = Field(default=None, description="A node was chosen.")
    pulled: Seconds | None = Field(default=None, description="The image was there.")
    prepared: Seconds | None = Field(default=None, description="The launcher had prepared the weights.")
    imported: Seconds | None = Field(default=None, description="vLLM was imported.")
    loaded: Seconds | None = Field(default=None, description="The weights were loaded.")
    compiled: Seconds | None = Field(default=None, description="Kernels were compiled.")
    captured: Seconds | None = Field(default=None, description="CUDA graphs were captured.")
    ready: Seconds | None = Field(default=None, description="The pod was ready.")


class ScalingDecision(Base):
    """One change of the number of replicas."""

    time: datetime = Field(description="When.")
    from_replicas: Count = Field(description="Replicas before.")
    to_replicas: Count = Field(description="Replicas after.")
    reason: Text = Field(description="Why.")


class Learned(Base):
    """What this resource's engines and requests are like, as far as that was seen."""

    prompt_tokens_per_second: Seconds | None = Field(
        default=None, description="Tokens of prompts that one engine reads."
    )
    step_milliseconds: Seconds | None = Field(default=None, description="A step of one engine, whatever it works on.")
    sequence_milliseconds: Seconds | None = Field(default=None, description="What each sequence adds to a step.")
    prompt_tokens: Seconds | None = Field(default=None, description="Mean tokens of a prompt.")
    answer_tokens: Seconds | None = Field(default=None, description="Mean tokens of an answer.")


class ObservedAutoscaling(Base):
    """What the autoscaler wants and why. Written when that changes, not with every request."""

    desired_replicas: Count | None = Field(default=None, description="Replicas that it wants.")
    signal: Text | None = Field(default=None, description="What it looked at.")
    reason: Text | None = Field(default=None, description="Why.")
    limited_by: Text | None = Field(
        default=None,
        description="What held it back since then: minReplicas, maxReplicas, capacity (GPUs), scaleDownWindow, rollout "
        "or metrics.",
    )
    last_scale_time: datetime | None = Field(default=None, description="When it last changed the number.")
    decisions: Annotated[tuple[ScalingDecision, ...], Field(max_length=5)] = Field(
        default=(), description="The last five changes, newest first."
    )
    learned: Learned | None = Field(
        default=None, description="What engines and requests are like; where an operator goes on that begins anew."
    )


class ObservedRevision(Base):
    """Which revision of the pod template runs."""

    current: Name | None = Field(default=None, description="The last revision that has served.")
    updated: Name | None = Field(default=None, description="The revision that is being rolled out.")
    renderer: Name | None = Field(default=None, description="Renderer that made the running template.")
    available: Name | None = Field(default=None, description="Renderer that an adoption would bring.")
    failed: Name | None = Field(default=None, description="The revision that was rolled back.")


class RejectedNode(Base):
    """A node that cannot take an engine."""

    name: Name = Field(description="Name of the node.")
    reason: Text = Field(description="Why.")


class Nodes(Base):
    """Nodes that can take an engine, and some that cannot."""

    eligible: Count = Field(default=0, description="Nodes that can.")
    rejected: Annotated[tuple[RejectedNode, ...], Field(max_length=10), ListMap("name")] = Field(
        default=(), description="Up to ten that cannot."
    )


class LastFailure(Base):
    """The last failure of an engine."""

    time: datetime = Field(description="When.")
    pod: Name = Field(description="The pod.")
    exit_code: int | None = Field(default=None, description="Exit code of the container.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="What failed, in one CamelCase word.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="What failed, in a sentence.")
    hint: Text | None = Field(default=None, description="The way out.")
    since: datetime | None = Field(
        default=None, description="Since when the pod fails so, where that passes by itself and is retried."
    )


class Status(Base):
    """The observed state."""

    observed_generation: Count | None = Field(default=None, description="Generation of the spec that was looked at.")
    desired_replicas: Count | None = Field(
        default=None,
        description="Engine pods that are wanted: spec.replicas, or what the autoscaler found; 0 while suspended.",
    )
    replicas: Count | None = Field(default=None, description="Engine pods.")
    ready_replicas: Count | None = Field(default=None, description="Engine pods that are ready.")
    updated_replicas: Count | None = Field(default=None, description="Engine pods of the latest revision.")
    selector: Text | None = Field(default=None, description="Label selector of the engine pods.")
    url: Text | None = Field(default=None, description="The OpenAI endpoint inside the cluster.")
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = Field(
        default=(), description="The state, aspect by aspect. Ready is the summary."
    )
    model: ServedModel | None = Field(default=None, description="What the engine says that it serves.")
    capacity: Annotated[tuple[Capacity, ...], Field(max_length=16), ListMap("product")] = Field(
        default=(), description="What one engine holds, for each GPU product."
    )
    engine: ObservedEngine | None = Field(default=None, description="The engine as seen.")
    cold_start: ColdStart | None = Field(default=None, description="Seconds of the last start.")
    autoscaling: ObservedAutoscaling | None = Field(default=None, description="What the autoscaler wants and why.")
    revision: ObservedRevision | None = Field(default=None, description="Which revision of the pod template runs.")
    nodes: Nodes | None = Field(default=None, description="Nodes that can take an engine, and some that cannot.")
    last_failure: LastFailure | None = Field(default=None, description="The last failure of an engine.")


def _waiting(kind: ConditionType, status: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": Reason.PENDING,
        "message": "Waiting for the operator.",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }


# What a resource says while no operator has looked at it yet; a default of the schema, as in the Gateway API.
UNSEEN_CONDITIONS = [_waiting(ConditionType.READY, "Unknown"), _waiting(ConditionType.RECONCILING, "True")]
