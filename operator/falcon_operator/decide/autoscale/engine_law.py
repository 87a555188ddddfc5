"""What one engine can do: how long prompts and tokens take, learned from the engines' own counters, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A token that takes longer is too slow: where an engine's tokens would, it counts as full.
FULL_TOKEN_SECONDS = 0.05


@dataclass(frozen=True)
class Law:
    """A decode step of b sequences takes `step + each * b` seconds, and a prompt token 1 / `prompt_rate`."""

    prompt_rate: float = 17_000.0  # tokens a second
    step: float = 0.0054  # seconds
    each: float = 0.000144  # seconds

    def full(self, prompt: float, answer: float, per_engine: int) -> tuple[float, float]:
        """Requests in flight and requests a second of a full engine, for mean tokens of prompts and answers.

        With prompts between, b sequences see a token each `step + (each + prompt seconds / answer) * b` seconds.
        """
        prefill, answer = prompt / self.prompt_rate, max(answer, 1.0)
        slope = self.each + prefill / answer
        most = min(max((FULL_TOKEN_SECONDS - self.step) / slope, 1.0), float(per_engine))
        return most, 1.0 / (prefill + answer * (self.step / most + self.each))


@dataclass(frozen=True)
class Learned:
    """What this deployment's engines and requests are like, as far as that was seen."""

    law: Law = Law()
    prompt: float | None = None  # mean tokens of a prompt; None where no request has been seen
    answer: float | None = None

    def manifest(self) -> dict[str, float]:
        """As `status.autoscaling.learned`."""
        found = {
            "promptTokensPerSecond": round(self.law.prompt_rate),
            "stepMilliseconds": round(self.law.step * 1000, 2),
            "sequenceMilliseconds": round(self.law.each * 1000, 4),
        }
        if self.prompt is not None and self.answer is not None:
            found |= {"promptTokens": round(self.prompt), "answerTokens": round(self.answer)}
        return found

    @classmethod
    def from_status(cls, written: Mapping[str, Any] | None) -> Learned:
        """What was written down earlier."""
        if not written:
            return cls()
        law = Law(
            float(written["promptTokensPerSecond"]),
            float(written["stepMilliseconds"]) / 1000,
            float(written["sequenceMilliseconds"]) / 1000,
        )
        prompt, answer = written.get("promptTokens"), written.get("answerTokens")
        return cls(law, float(prompt) if prompt else None, float(answer) if answer else None)
