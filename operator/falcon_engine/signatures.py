"""What the launcher says about an engine that ended: a reason, a sentence and a way out; and how it knows."""

import json
from dataclasses import dataclass

# What the kubelet keeps of a termination message.
MESSAGE_BYTES = 4096
# Exit codes of the launcher. 0 is a wanted stop and nothing else.
START_EXIT = 1
CONFIGURATION_EXIT = 2  # a restart would end the same way
DEATH_EXIT = 70

# What passes by itself, as when the engine before this one still gives its memory back: the launcher tries again.
TRANSIENT_REASONS = frozenset(("GPUMemoryTaken",))
# For how long such a failure is no reason to call a person.
TRANSIENT_SECONDS = 300.0

_LINE_CHARACTERS = 500
_SENTENCE_CHARACTERS = 1000
_WORD_CHARACTERS = 64


@dataclass(frozen=True)
class Signature:
    """Words in a log that tell why. `message` and `hint` may use the pattern's named groups.

    The pattern sees the last lines of the log joined by newlines. No part of it repeats without a bound, so that no
    log makes the search slow. `more` adds a sentence for each further pattern that the same log holds.
    """

    name: str  # of the log in the tests that shows it
    reason: str
    pattern: str
    message: str
    hint: str
    exit_code: int = START_EXIT
    more: tuple[tuple[str, str], ...] = ()
    served: bool | None = None  # only before, or only after, the engine has answered


class DiagnosisError(ValueError):
    """The text is not a diagnosis of the launcher."""


@dataclass(frozen=True)
class Diagnosis:
    """Why the engine ended, for a person: written to the termination message, read by the operator."""

    reason: str
    message: str
    hint: str
    exit_code: int
    engine_version: str | None = None
    log_tail: tuple[str, ...] = ()

    def to_json(self) -> str:
        """At most 4096 bytes of JSON; the oldest log lines are left out first."""
        tail, limit = [_cut(line, _LINE_CHARACTERS) for line in self.log_tail], _SENTENCE_CHARACTERS
        version = _cut(self.engine_version, _WORD_CHARACTERS) if self.engine_version else self.engine_version
        while True:
            text = json.dumps(
                {
                    "reason": _cut(self.reason, _WORD_CHARACTERS),
                    "message": _cut(self.message, limit),
                    "hint": _cut(self.hint, limit),
                    "exitCode": self.exit_code,
                    "engineVersion": version,
                    "logTail": tail,
                }
            )
            if len(text) <= MESSAGE_BYTES:  # ASCII: a character is a byte
                return text
            if tail:
                tail = tail[1:]
            else:
                limit //= 2

    @staticmethod
    def from_json(text: str) -> "Diagnosis":
        """Read what `to_json` wrote; anything else (a plain log, a cut text) is a `DiagnosisError`."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise DiagnosisError(f"the termination message is not JSON: {e}") from None
        if not isinstance(raw, dict):
            raise DiagnosisError("the termination message is not a JSON object")
        wanted = {"reason": str, "message": str, "hint": str, "exitCode": int, "logTail": list}
        for key, kind in wanted.items():
            if not isinstance(raw.get(key), kind) or isinstance(raw.get(key), bool):
                raise DiagnosisError(f"the termination message's {key!r} is not a {kind.__name__}")
        version = raw.get("engineVersion")
        if version is not None and not isinstance(version, str):
            raise DiagnosisError("the termination message's 'engineVersion' is neither a string nor null")
        unknown = set(raw) - set(wanted) - {"engineVersion"}
        if unknown:
            raise DiagnosisError(f"the termination message has unknown fields: {', '.join(sorted(unknown))}")
        return Diagnosis(
            reason=raw["reason"],
            message=raw["message"],
            hint=raw["hint"],
            exit_code=raw["exitCode"],
            engine_version=version,
            log_tail=tuple(str(line) for line in raw["logTail"]),
        )


class Refusal(Exception):
    """The launcher does not start the engine."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
