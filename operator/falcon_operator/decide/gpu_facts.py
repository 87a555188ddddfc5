"""What a node's labels say of its GPUs. What they do not say, or say in a way that cannot be true, is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from falcon_operator.desired import gpu_labels
from falcon_operator.desired.gpu_labels import plain_number, scheduler_number
from falcon_operator.desired.gpu_needs import MOST_SHARERS

# More than any GPU, driver or capability will have for long: such a number says nothing.
_MOST_MIB = 1 << 24
_MOST_DRIVER = 9999
_MOST_MAJOR = 99
_MOST_MINOR = 9
# GPUs whose driver states no memory because they share the machine's: what the engine sees of it, in MiB.
_UNIFIED_MIB = {"NVIDIA-GB10": 124_500, "GB10": 124_500}


@dataclass(frozen=True)
class Number:
    """A number in a label. `passes` is whether the scheduler's `Gt` can compare it at all."""

    value: int | None
    label: str
    text: str | None
    passes: bool = True

    @property
    def doubt(self) -> str:
        """Why the value is not known."""
        return f"no label {self.label}" if self.text is None else f'label {self.label} is "{self.text}"'


@dataclass(frozen=True)
class GpuFacts:
    """The labels of one resource: `labels_of` is what its own labels begin with."""

    product: str | None
    memory: Number
    driver: Number
    major: Number
    minor: Number
    replicas: Number
    strategy: str | None
    mixed_up: bool

    @property
    def unified_mib(self) -> int | None:
        """The memory of a GPU whose driver states none."""
        product = (self.product or "").removesuffix("-SHARED")
        return _UNIFIED_MIB.get(product) if self.memory.text is None else None

    @property
    def capability(self) -> tuple[int, int] | None:
        """The compute capability where both numbers are known."""
        if self.major.value is None or self.minor.value is None:
            return None
        return self.major.value, self.minor.value


def read(labels: Mapping[str, str], labels_of: str) -> GpuFacts:
    """The facts; never raises."""
    memory = gpu_labels.of(labels_of, "memory")
    driver = gpu_labels.DRIVER if gpu_labels.DRIVER in labels else gpu_labels.DRIVER_OLD
    replicas = gpu_labels.of(labels_of, "replicas")
    product = labels.get(gpu_labels.of(labels_of, "product")) or labels.get(gpu_labels.PRODUCT)
    return GpuFacts(
        product=product or None,
        memory=_compared(labels, memory, _MOST_MIB),
        driver=_compared(labels, driver, _MOST_DRIVER),
        major=_counted(labels, gpu_labels.CAPABILITY_MAJOR, 1, _MOST_MAJOR),
        minor=_counted(labels, gpu_labels.CAPABILITY_MINOR, 0, _MOST_MINOR),
        replicas=_counted(labels, replicas, 0, MOST_SHARERS),
        strategy=labels.get(gpu_labels.of(labels_of, "sharing-strategy")),
        mixed_up=bool(product) and str(product).endswith("-MIG-INVALID"),
    )


def _compared(labels: Mapping[str, str], label: str, most: int) -> Number:
    """A number that the scheduler compares with `Gt`: what it cannot read, or is less than one, it refuses."""
    text = labels.get(label)
    if text is None:
        return Number(None, label, None)
    number = scheduler_number(text)
    if number is None or number < 1:
        return Number(None, label, text, passes=False)
    return Number(number if number <= most else None, label, text)


def _counted(labels: Mapping[str, str], label: str, least: int, most: int) -> Number:
    """A number that the scheduler compares as text."""
    text = labels.get(label)
    number = plain_number(text, most)
    return Number(None if number is None or number < least else number, label, text)
