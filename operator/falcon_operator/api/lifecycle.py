"""Starting, replacing and updating pods."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from falcon_operator.api.base import Base, Duration, seconds


class Fit(StrEnum):
    """What happens where the GPU does not hold what the engine was asked for."""

    CLAMP = "Clamp"
    REFUSE = "Refuse"


class Strategy(StrEnum):
    """How pods are replaced."""

    AUTO = "Auto"
    IN_PLACE = "InPlace"
    SURGE = "Surge"


class OnFailure(StrEnum):
    """What happens when a new revision does not become ready."""

    HOLD = "Hold"
    ROLL_BACK = "RollBack"


class UpdatePolicy(StrEnum):
    """When a new operator's defaults and renderer are taken over."""

    MANUAL = "Manual"
    AUTO = "Auto"


class Startup(Base):
    """What a pod must do before it is ready."""

    budget: Annotated[str, Duration("10s", "24h")] = Field(
        default="30m", description="How long a pod may take to start before it is restarted."
    )
    canary: bool = Field(default=True, description="Whether a completion of one token must succeed before Ready.")

    @property
    def budget_seconds(self) -> int:
        """The budget in seconds."""
        return seconds(self.budget)


class Rollout(Base):
    """How pods are replaced."""

    strategy: Strategy = Field(
        default=Strategy.AUTO,
        description="Auto starts a new pod first only where a GPU is free, else in place; InPlace stops the old pod "
        "first; Surge starts the new pod first.",
    )
    drain_timeout: Annotated[str, Duration("0s", "24h")] = Field(
        default="5m", description="How long a leaving pod may finish its streams."
    )
    on_failure: OnFailure = Field(
        default=OnFailure.HOLD,
        description="When a new revision does not become ready: Hold keeps the healthy old pods, RollBack returns to "
        "the last good revision.",
    )

    @property
    def drain_timeout_seconds(self) -> int:
        """The drain timeout in seconds."""
        return seconds(self.drain_timeout)
