"""What the engine needs of a GPU."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, ObjectName, ShortText, Size
from falcon_operator.api.markers import CEL, ListMap, ListSet, Matches

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"


class FP4(StrEnum):
    """How much native FP4 arithmetic matters."""

    REQUIRE = "Require"
    PREFER = "Prefer"
    ALLOW = "Allow"


class GPUClaim(Base):
    """A claim of Dynamic Resource Allocation."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            '{path} "{self.name}" must set exactly one of resourceClaimName and resourceClaimTemplateName',
        ),
    )

    name: Annotated[
        str,
        Field(max_length=63),
        Matches("[a-z0-9]([-a-z0-9]*[a-z0-9])?", '{path} is "{self}": use lower case letters, digits and -'),
    ] = Field(description="Name of the claim inside the pod.")
    resource_claim_name: ObjectName | None = Field(
        default=None, description="An existing ResourceClaim, shared by all pods of the resource."
    )
    resource_claim_template_name: ObjectName | None = Field(
        default=None, description="A ResourceClaimTemplate from which every pod gets a claim of its own."
    )
    request: ShortText | None = Field(default=None, description="One request of the claim; all of them where unset.")


class GPU(Base):
    """What the engine needs of a GPU. `resourceName` and `count` say it with extended resources, `claims` with DRA."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!(has(self.claims) && self.claims.size() > 0 && has(self.count))",
            "{path} sets both count {self.count} and claims: a claim says how many devices it takes, so drop either",
        ),
        CEL(
            "!(has(self.claims) && self.claims.size() > 0 && has(self.resourceName))",
            '{path} sets both resourceName "{self.resourceName}" and claims: '
            "a claim says which devices it takes, so drop either",
        ),
    )

    resource_name: (
        Annotated[
            str,
            Field(max_length=317),
            Matches(
                r"nvidia\.com/(gpu(\.shared)?|mig-[1-9][0-9]*(c\.[1-9][0-9]*)?g\.[1-9][0-9]*gb(\.[a-z0-9.]+)?)",
                '{path} is "{self}": write nvidia.com/gpu, or a MIG profile such as nvidia.com/mig-1g.24gb',
            ),
        ]
        | None
    ) = Field(default=None, description="The extended resource to ask for; nvidia.com/gpu where unset.")
    count: Annotated[int, Field(ge=0, le=16)] | None = Field(
        default=None,
        description="GPUs of a pod; above one the model is split over them. Unset: 1, or 0 where engine.device is cpu.",
    )
    claims: Annotated[tuple[GPUClaim, ...], Field(max_length=8), ListMap("name")] = Field(
        default=(), description="Claims of Dynamic Resource Allocation, in place of resourceName and count."
    )
    fp4: FP4 = Field(
        default=FP4.PREFER,
        description="Whether GPUs without native FP4 may serve: Require refuses them, Prefer takes them last, "
        "Allow treats them alike.",
    )
    products: Annotated[tuple[ShortText, ...], Field(max_length=32), ListSet()] = Field(
        default=(), description="GPU products that may serve, as in the node label nvidia.com/gpu.product. Empty: any."
    )
    memory_at_least: Size | None = Field(default=None, description="Least memory of the GPU, such as 24Gi.")

    @property
    def effective_resource_name(self) -> str:
        """The extended resource to ask for."""
        return self.resource_name or DEFAULT_GPU_RESOURCE
