"""Ways in which a pod fails, as the kubelet reports them."""

from collections.abc import Callable
from typing import Any

from tests.unit.world import Json, at, container, crash_loop, schedule, terminated

Break = Callable[[Json], None]


def waiting(reason: str, message: str = "") -> Break:
    def apply(pod: Json) -> None:
        schedule(pod, at(11))
        container(pod, {"waiting": {"reason": reason, "message": message}})

    return apply


def crashed(*args: Any, restarts: int = 1, **kwargs: Any) -> Break:
    def apply(pod: Json) -> None:
        schedule(pod, at(11))
        crash_loop(pod, terminated(*args, **kwargs), restarts)

    return apply


NOT_FOUND = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "registry.example.com/no:1": '
    "failed to resolve reference: registry.example.com/no:1: not found"
)
IMAGE = {"image": {"reference": "registry.example.com/no:1"}}
