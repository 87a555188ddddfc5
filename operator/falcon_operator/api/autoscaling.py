"""Who changes the number of replicas."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from falcon_operator.api.base import Base, Duration, seconds
from falcon_operator.api.markers import CEL


class AutoscalingMode(StrEnum):
    """Who changes the number of replicas."""

    NATIVE = "Native"
    EXTERNAL = "External"


class Autoscaling(Base):
    """Who changes the number of replicas, and between which bounds. `autoscaling: {maxReplicas: 8}` is enough."""

    rules: ClassVar[tuple[CEL, ...]] = (
        CEL(
            "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "{path}.minReplicas is {self.minReplicas}, above maxReplicas {self.maxReplicas}: "
            "lower the one or raise the other",
        ),
        CEL(
            "self.mode != 'Native' || has(self.maxReplicas)",
            "{path}.maxReplicas is missing for mode {self.mode}: the operator must know how far it may scale; "
            "set it, or set mode to External",
        ),
    )

    mode: AutoscalingMode = Field(
        default=AutoscalingMode.NATIVE,
        description="Native: the operator scales. External: an HPA or KEDA scales through the scale subresource.",
    )
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Least replicas; 0 scales to zero and needs the gateway."
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Most replicas; required for Native."
    )
    # An integer 0 passes the API server's own check, which cuts the minimum off to an integer, too.
    target_utilization: Annotated[
        float,
        Field(ge=0.1, le=1.0),
        CEL("self != 0.0", "{path} is {self}: write a share from 0.1 to 1, such as 0.7"),
    ] = Field(
        default=0.7,
        description="How full engines may be: a share of the sequences that fill one. Less is used where requests come "
        "in crowds.",
    )
    scale_down_window: Annotated[str, Duration("0s", "24h")] = Field(
        default="10m", description="How long load must stay low before replicas are removed."
    )
    scale_to_zero_after: Annotated[str, Duration("10s", "168h")] = Field(
        default="30m", description="How long without a request until the last replica is removed."
    )

    @property
    def scale_down_window_seconds(self) -> int:
        """The scale-down window in seconds."""
        return seconds(self.scale_down_window)

    @property
    def scale_to_zero_after_seconds(self) -> int:
        """The idle time before the last replica is removed, in seconds."""
        return seconds(self.scale_to_zero_after)
