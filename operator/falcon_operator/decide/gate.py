"""May the spec be acted on? If not: the reason, and a sentence that names the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.pending import not_yet_implemented
from falcon_operator.api.policy import refusals
from falcon_operator.api.reasons import Reason
from falcon_operator.api.resource import InvalidResourceError, parse
from falcon_operator.api.spec import Spec


@dataclass(frozen=True)
class Refusal:
    """Why nothing is done with a spec."""

    reason: Reason
    message: str


def admit(resource: Mapping[str, Any], config: OperatorConfig) -> Spec | Refusal:
    """The spec, or why it is not acted on."""
    try:
        spec = parse(resource).spec
    except InvalidResourceError as error:
        return Refusal(Reason.INVALID_SPEC, f"{_spec_field(str(error))}. Correct the spec; until then nothing changes.")
    if refused := refusals(spec, config):
        return Refusal(Reason.POLICY_REFUSED, ". ".join(map(_spec_field, refused)) + ".")
    if pending := not_yet_implemented(spec):
        named = ", ".join(f"spec.{field}" for field in pending)
        what = "has" if len(pending) == 1 else "have"
        return Refusal(
            Reason.NOT_YET_IMPLEMENTED,
            f"{named} {what} no effect in this release of the operator. Remove {named}; until then nothing changes.",
        )
    return spec


def _spec_field(sentence: str) -> str:
    """The API's sentences begin with a field's name below `spec`."""
    return sentence if sentence.startswith(("spec", "metadata")) else f"spec.{sentence}"
