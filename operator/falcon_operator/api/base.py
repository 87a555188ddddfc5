"""The base of all models, and the kinds of strings that several sections share."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from falcon_operator.api.markers import CEL, JsonSchema, Matches, with_rule


class Base(BaseModel):
    """A part of the resource. Unknown fields are ignored on reading: an older operator may meet a newer resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    rules: ClassVar[tuple[CEL, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchema:
        schema = handler.resolve_ref_schema(handler(core))
        for rule in cls.rules:
            schema.update(with_rule(schema, rule))
        return schema

    def manifest(self) -> dict[str, Any]:
        """The part as Kubernetes writes it: camelCase, and nothing where nothing was said."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}


def seconds(duration: str) -> int:
    """The length of a duration such as `1h30m` in seconds."""
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


@dataclass(frozen=True)
class Duration:
    """A string such as `30m` between two bounds."""

    at_least: str
    at_most: str

    PATTERN: ClassVar[str] = "([0-9]{1,6}[hms])+"

    @property
    def says(self) -> str:
        """The sentence for a value that is not one, or out of bounds."""
        return '{path} is "{self}": write a duration such as 90s, 30m or 1h30m' + (
            f", from {self.at_least} to {self.at_most}"
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: str) -> str:
            if not re.fullmatch(self.PATTERN, value) or not (
                seconds(self.at_least) <= seconds(value) <= seconds(self.at_most)
            ):
                raise PydanticCustomError("sentence", "{says}", {"says": self.says.replace("{self}", value)})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        # The pattern comes first: duration() of something else is an evaluation error and not a sentence.
        rule = (
            f"self.matches('^{self.PATTERN}$') && duration(self) >= duration('{self.at_least}')"
            f" && duration(self) <= duration('{self.at_most}')"
        )
        return {**with_rule(handler(core), CEL(rule, self.says)), "maxLength": 32}


_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE])?")


def _check_quantity(value: int | str) -> int | str:
    text = str(value)
    if not _QUANTITY.fullmatch(text) or not re.search("[1-9]", text):
        says = '{path} is "' + text + '": write a quantity above zero'
        raise PydanticCustomError("sentence", "{says}", {"says": says})
    return value


@dataclass(frozen=True)
class Quantity:
    """A Kubernetes quantity above zero."""

    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_check_quantity, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        schema = handler(core)
        text = "string(self)" if "anyOf" in schema else "self"  # it may be a number, as in `cpu: 2`
        rule = f"{text}.matches(r'^{_QUANTITY.pattern}$') && quantity({text}).isGreaterThan(quantity('0'))"
        says = '{path} is "{self}": write a quantity above zero, such as ' + self.example
        return with_rule(schema, CEL(rule, says))


Size = Annotated[str, Field(max_length=32), Quantity("50Gi")]

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches(
        "[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
        '{path} is "{self}", which cannot be the name of an object: '
        "use lower case letters, digits, - and ., with a letter or digit at both ends",
    ),
]

LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
ShortText = Annotated[str, Field(min_length=1, max_length=253)]

ImageReference = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Matches(
        r"[a-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?",
        '{path} is "{self}", which is not an image: write registry/repository:tag or registry/repository@sha256:digest',
    ),
]

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class SecretKeyRef(Base):
    """One key of a Secret in the same namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the same namespace.")
    key: Annotated[
        str,
        Field(min_length=1, max_length=253),
        Matches(
            "[-._a-zA-Z0-9]+", '{path} is "{self}", which cannot be a key of a Secret: use letters, digits, -, _ and .'
        ),
    ] = Field(description="Key in the Secret.")


class LocalRef(Base):
    """An object in the same namespace, by name."""

    name: ObjectName = Field(description="Name of the object, in the same namespace.")
