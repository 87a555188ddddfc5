"""Reading a resource as the API server hands it out."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, ValidationError

from falcon_operator.api.base import Base
from falcon_operator.api.spec import Spec


class InvalidResourceError(ValueError):
    """A resource that this operator cannot read; the text is a sentence for its owner."""


class Metadata(Base):
    """What the operator uses of a resource's metadata."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None


class FalconNVFP4Deployment(Base):
    """A resource: its metadata and its spec. Its status is written by the operator and not read back here."""

    metadata: Metadata
    spec: Spec = Field(default_factory=Spec)


def _path(location: Iterable[int | str]) -> str:
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            parts[-1] += f"[{part}]"
        else:
            parts.append(part)
    return ".".join(parts[1:] if parts[0] == "spec" and len(parts) > 1 else parts)


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path = _path(first["loc"])
    if first["type"] == "sentence":
        text: str = first["msg"]
        return text.replace("{path}", path)
    if first["type"] == "missing":
        return f"{path} is missing"
    value = first["input"]
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return f"{path} is {shown[:200]}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def parse(raw: Mapping[str, Any]) -> FalconNVFP4Deployment:
    """The resource as models. Raises InvalidResourceError with a sentence that names the first wrong field."""
    try:
        return FalconNVFP4Deployment.model_validate(raw)
    except ValidationError as error:
        raise InvalidResourceError(_sentence(error)) from error
