"""What else of the pod users may set: CPU and memory, the user it runs as, labels and annotations."""

from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, LabelKey, LabelValue, Quantity
from falcon_operator.api.markers import CEL

CPU = Annotated[int | str, Quantity("2 or 1500m")]
Memory = Annotated[int | str, Quantity("12Gi")]


class Requests(Base):
    """What the scheduler reserves."""

    cpu: CPU = Field(default="2", description="CPU.")
    memory: Memory = Field(default="12Gi", description="Memory.")


class Limits(Base):
    """What the kernel enforces; no limit where unset."""

    cpu: CPU | None = Field(default=None, description="CPU.")
    memory: Memory | None = Field(default=None, description="Memory.")


class Resources(Base):
    """CPU and memory of the engine; GPUs are under `gpu`."""

    rules: ClassVar[tuple[CEL, ...]] = tuple(
        CEL(
            f"!has(self.requests) || !has(self.limits) || !has(self.limits.{name})"
            f" || !isQuantity(string(self.requests.{name})) || !isQuantity(string(self.limits.{name}))"
            f" || !quantity(string(self.limits.{name})).isLessThan(quantity(string(self.requests.{name})))",
            f'{{path}}.limits.{name} is "{{self.limits.{name}}}", below the request of "{{self.requests.{name}}}": '
            "raise the limit or lower the request",
        )
        for name in ("cpu", "memory")
    )

    requests: Requests = Field(default_factory=Requests, description="What the scheduler reserves.")
    limits: Limits = Field(default_factory=Limits, description="What the kernel enforces; no limit where unset.")


class Security(Base):
    """The user that the engine runs as. The rest of the restricted profile is not negotiable."""

    run_as_user: Annotated[
        int,
        Field(ge=0, le=2_147_483_647),
        CEL(
            "self != 0",
            "{path} is {self}, which is root: the restricted profile refuses it, so name another user of the image",
        ),
    ] = Field(default=2000, description="User id; not root.")
    run_as_group: Annotated[int, Field(ge=0, le=2_147_483_647)] = Field(default=2000, description="Group id.")
    fs_group: Annotated[int, Field(ge=0, le=2_147_483_647)] = Field(
        default=2000, description="Group that owns the mounted volumes."
    )
    read_only_root_filesystem: bool = Field(
        default=True, description="Whether the image's own files are read-only for the engine."
    )


# The operator's and Kubernetes' own keys: whoever sets them changes what selects, admits or deletes the pods.
RESERVED_KEY_PATTERN = r"^([^/]*[.-])?((kubernetes|k8s)\.io|falcon-operator\.io)/"


def _own_keys_only(kind: str) -> CEL:
    return CEL(
        f"self.all(key, !key.matches(r'{RESERVED_KEY_PATTERN}'))",
        f"{{path}} has \"{{self.filter(key, key.matches(r'{RESERVED_KEY_PATTERN}'))[0]}}\": {kind} of kubernetes.io, "
        "k8s.io and falcon-operator.io belong to Kubernetes and the operator",
    )


_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"


def _well_formed(kind: str) -> CEL:
    return CEL(
        f"self.all(key, key.matches(r'{_KEY_PATTERN}'))",
        f"{{path}} has \"{{self.filter(key, !key.matches(r'{_KEY_PATTERN}'))[0]}}\", which cannot be the key of {kind}",
    )


class PodMetadata(Base):
    """Labels and annotations for the pods."""

    labels: Annotated[
        dict[LabelKey, LabelValue], Field(max_length=32), _own_keys_only("labels"), _well_formed("a label")
    ] = Field(default_factory=dict, description="More labels of the pods.")
    annotations: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096)]],
        Field(max_length=32),
        _own_keys_only("annotations"),
        _well_formed("an annotation"),
    ] = Field(default_factory=dict, description="More annotations of the pods.")
