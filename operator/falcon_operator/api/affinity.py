"""Affinity in Kubernetes' own words; rules between pods stay inside the namespace."""

from typing import Annotated, Literal

from pydantic import Field

from falcon_operator.api.base import Base, LabelKey, LabelValue, ShortText

Values = Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=64)]


class LabelRequirement(Base):
    """One condition on labels."""

    key: LabelKey = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How key and values relate.")
    values: Values = Field(default=(), description="Values for In and NotIn.")


class LabelSelector(Base):
    """Objects by their labels."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = Field(
        default=None, description="Labels that must have these values."
    )
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=32)] | None = Field(
        default=None, description="Further conditions, all of which must hold."
    )


class NodeRequirement(Base):
    """One condition on a node."""

    key: LabelKey = Field(description="Label key, or metadata.name among fields.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How key and values relate."
    )
    values: Values = Field(default=(), description="Values for In, NotIn, Gt and Lt.")


class NodeSelectorTerm(Base):
    """Conditions on a node, all of which must hold."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(max_length=32)] | None = Field(
        default=None, description="Conditions on the node's labels."
    )
    match_fields: Annotated[tuple[NodeRequirement, ...], Field(max_length=8)] | None = Field(
        default=None, description="Conditions on the node's fields."
    )


class NodeSelector(Base):
    """Nodes by terms, one of which must hold."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)] = Field(
        description="Terms, one of which must hold."
    )


class PreferredNodes(Base):
    """Nodes that are preferred."""

    weight: Annotated[int, Field(ge=1, le=100)] = Field(description="How much the preference counts.")
    preference: NodeSelectorTerm = Field(description="The nodes.")


class NodeAffinity(Base):
    """Which nodes the pods go to."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="Nodes that are allowed, beside what `gpu` asks for."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredNodes, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Nodes that are preferred.")


class PodAffinityTerm(Base):
    """Pods of the same namespace, and how near."""

    label_selector: LabelSelector | None = Field(default=None, description="The pods.")
    topology_key: ShortText = Field(description="Node label whose value makes two nodes near each other.")


class PreferredPods(Base):
    """Pods that are preferred near or far."""

    weight: Annotated[int, Field(ge=1, le=100)] = Field(description="How much the preference counts.")
    pod_affinity_term: PodAffinityTerm = Field(description="The pods, and how near.")


class PodAffinity(Base):
    """Pods of the same namespace that these pods go near to, or stay away from."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Must hold.")
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredPods, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Is preferred.")


class Affinity(Base):
    """Where pods go, by nodes and by other pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Which nodes the pods go to.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pods to be near to.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pods to stay away from.")
