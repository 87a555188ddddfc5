"""What one engine can do: how long prompts and tokens take, and when it is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

# A token that takes longer is too slow: where an engine's tokens would, it counts as full.
FULL_TOKEN_SECONDS = 0.05


@dataclass(frozen=True)
class Law:
    """A decode step of b sequences takes `step + each * b` seconds, and a prompt token 1 / `prompt_rate`.

    The defaults were measured on an H200 with NVFP4 weights, and hold until this deployment's own figures are known.
    """

    prompt_rate: float = 17_000.0  # tokens a second
    step: float = 0.0054  # seconds
    each: float = 0.000144  # seconds

    def scaled(self, prompts: float, steps: float, sequences: float) -> Law:
        """The law whose three parts take so many times as long."""
        return Law(self.prompt_rate / prompts, self.step * steps, self.each * sequences)


DEFAULT = Law()


@dataclass(frozen=True)
class Engine:
    """One engine under a mix of requests: `prompt` and `answer` are mean tokens, `most` its sequences when it is full.

    With prompts in between, b sequences see a token each `step + slope * b` seconds.
    """

    step: float
    slope: float
    most: float
    rate: float  # requests a second of a full engine

    @classmethod
    def of(cls, law: Law, prompt: float, answer: float, per_engine: int) -> Engine:
        """From the law; `per_engine` sequences are the most that it takes at a time."""
        prefill, answer = prompt / law.prompt_rate, max(answer, 1.0)
        slope = law.each + prefill / answer
        most = min(max((FULL_TOKEN_SECONDS - law.step) / slope, 1.0), float(per_engine))
        return cls(law.step, slope, most, most / (answer * (law.step + slope * most)))

    def use(self, in_flight: float) -> float:
        """The share of its full rate at which it serves with so many requests in flight; above 1 beyond `most`."""
        if in_flight >= self.most:
            return in_flight / self.most
        token = self.step + self.slope * in_flight
        return (in_flight / self.most) * (self.step + self.slope * self.most) / token


@dataclass(frozen=True)
class Learned:
    """What this deployment's engines and requests are like, as far as that was seen."""

    law: Law = DEFAULT
    prompt: float | None = None  # mean tokens of a prompt; None where no request has been seen
    answer: float | None = None

    def engine(self, per_engine: int) -> Engine | None:
        """An engine under these requests; None where they are not known."""
        if self.prompt is None or self.answer is None:
            return None
        return Engine.of(self.law, self.prompt, self.answer, per_engine)

    def manifest(self) -> dict[str, float]:
        """As `status.autoscaling.learned`."""
        found: dict[str, float] = {
            "promptTokensPerSecond": round(self.law.prompt_rate),
            "stepMilliseconds": round(self.law.step * 1000, 2),
            "sequenceMilliseconds": round(self.law.each * 1000, 4),
        }
        if self.prompt is not None and self.answer is not None:
            found |= {"promptTokens": round(self.prompt), "answerTokens": round(self.answer)}
        return found

    @classmethod
    def from_status(cls, written: Mapping[str, Any] | None) -> Learned:
        """What was written down earlier; figures that make no sense are left out."""
        found = written or {}
        rate, step, each, prompt, answer = (
            _positive(found.get(key))
            for key in (
                "promptTokensPerSecond", "stepMilliseconds", "sequenceMilliseconds", "promptTokens", "answerTokens"
            )
        )  # fmt: skip
        law = Law(rate, step / 1000, each / 1000) if rate and step and each else DEFAULT
        return cls(law, prompt, answer) if prompt and answer else cls(law)


def _positive(value: Any) -> float | None:
    number = float(value or 0)
    return number if 0 < number < inf else None
