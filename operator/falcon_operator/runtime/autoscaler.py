"""Looks at each resource's gateways and engines all the time, and has the newest decision ready for the workers."""

from __future__ import annotations

from collections.abc import Callable

from falcon_operator.decide.types import Scaling, Watch
from falcon_operator.runtime.cache import Key


class Autoscaler:
    """One loop a resource; `changed` gets the key when a plan would come out differently."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed

    def want(self, key: Key, watch: Watch | None) -> None:
        """What is there of a resource now; None ends looking at it."""

    def scaling(self, key: Key) -> Scaling | None:
        """The newest decision, which counts as told from here on; None where there is none yet."""
        return None

    async def close(self) -> None:
        """Stop looking."""
