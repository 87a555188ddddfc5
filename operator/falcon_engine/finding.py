"""What was found in a checkpoint: one sentence with its way out."""

from collections.abc import Sequence
from dataclasses import dataclass

REFUSED, WARNING = "refused", "warning"
COPY = "Copy the checkpoint again, all files of it."
QUANTIZE = "Quantize the BF16 model again with falcon-quantize."


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a checkpoint for a version of vLLM.

    `code` is for programs. `sentence` says what, `fix` the way out. `repairable`: new metadata is enough. `severity` is
    `refused` (the engine does not load it, or computes nonsense) or `warning`. `reason` is the one of conditions.
    """

    code: str
    file: str
    sentence: str
    fix: str
    repairable: bool = False
    severity: str = REFUSED
    reason: str = "QuantizationRefused"

    def __str__(self) -> str:
        return f"{self.file}: {self.sentence} {self.fix}"


def refuses(findings: Sequence[Finding]) -> bool:
    """Whether the engine would not load the checkpoint."""
    return any(f.severity == REFUSED for f in findings)


def curable(findings: Sequence[Finding]) -> bool:
    """Whether new metadata is enough to make the engine load it."""
    return all(f.repairable for f in findings if f.severity == REFUSED)
