"""Where pods go: the typed part of a pod's scheduling that users may set."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from falcon_operator.api.affinity import Affinity, LabelSelector
from falcon_operator.api.base import Base, LabelKey, LabelValue, ObjectName, ShortText
from falcon_operator.api.gpu import DEFAULT_GPU_RESOURCE
from falcon_operator.api.markers import CEL


class Toleration(Base):
    """A taint that the pods put up with."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!(self.operator == 'Exists' && has(self.value) && self.value != '')",
            '{path} sets value "{self.value}" with operator Exists: Exists takes any value, so drop one of them',
        ),
        CEL(
            "has(self.key) || self.operator == 'Exists'",
            "{path} has operator {self.operator} without a key: name the key, or tolerate all taints with Exists",
        ),
        CEL(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "{path} sets tolerationSeconds {self.tolerationSeconds} without effect NoExecute, which alone evicts",
        ),
    )

    key: LabelKey | None = Field(default=None, description="Key of the taint; all taints where unset.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="Whether the value counts.")
    value: LabelValue | None = Field(default=None, description="Value of the taint for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; all effects where unset."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="How long a NoExecute taint is put up with."
    )


class TopologySpreadConstraint(Base):
    """How evenly pods are spread."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = Field(description="Largest difference between two domains.")
    topology_key: ShortText = Field(description="Node label whose values are the domains.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(description="What to do where it fails.")
    label_selector: LabelSelector | None = Field(
        default=None, description="Pods that count; the pods of this resource where unset."
    )
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="Least domains.")
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes that the affinity excludes count."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether tainted nodes count."
    )


class Scheduling(Base):
    """Where pods go."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict, description="Labels that a node must have, beside what `gpu` asks for."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = Field(
        default=(Toleration(key=DEFAULT_GPU_RESOURCE, operator="Exists", effect="NoSchedule"),),
        description="Taints that the pods put up with. A list of your own replaces the default.",
    )
    affinity: Affinity | None = Field(default=None, description="Affinity to nodes and pods.")
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] = Field(
        default=(), description="How evenly pods are spread over zones or nodes."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    runtime_class_name: ObjectName | None = Field(default=None, description="RuntimeClass of the pods, such as nvidia.")
    scheduler_name: ObjectName | None = Field(default=None, description="Scheduler that places the pods.")
    queue_name: ObjectName | None = Field(default=None, description="Kueue's LocalQueue that admits the pods.")
