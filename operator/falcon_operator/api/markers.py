"""What a type annotation can say beyond pydantic: CEL rules with a sentence, and how a list merges.

A sentence is a template. `{path}` becomes the field's dotted name below `spec`, and any other `{...}` is a CEL
expression whose value is put in. The converter in `structural` turns it into `message` and `messageExpression`.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

RULES_KEY = "x-kubernetes-validations"
REQUIRED_BY_RULE_KEY = "x-required-by-rule"

JsonSchema = dict[str, Any]


def with_rule(schema: JsonSchema, rule: "CEL") -> JsonSchema:
    """A copy of a schema node with one more rule."""
    return {**schema, RULES_KEY: [*schema.get(RULES_KEY, []), {"rule": rule.rule, "says": rule.says}]}


@dataclass(frozen=True)
class CEL:
    """A rule that the API server checks, and the sentence for whoever breaks it."""

    rule: str
    says: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return with_rule(handler(core), self)


@dataclass(frozen=True)
class Matches:
    """A string that must match a pattern whole: checked by the API server in CEL, and on reading by pydantic."""

    pattern: str
    says: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: str) -> str:
            if not re.fullmatch(self.pattern, value):
                raise PydanticCustomError("sentence", "{says}", {"says": self.says.replace("{self}", value)})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return with_rule(handler(core), CEL(f"self.matches(r'^(?:{self.pattern})$')", self.says))


@dataclass(frozen=True)
class ListMap:
    """A list whose items are merged by a key, as server-side apply does for containers."""

    key: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return {**handler(core), **marks}


@dataclass(frozen=True)
class ListSet:
    """A list of unique values without an order."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(core), "x-kubernetes-list-type": "set"}


@dataclass(frozen=True)
class RequiredByRule:
    """A required field whose absence a rule of the parent explains better than `Required value` would."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(core), REQUIRED_BY_RULE_KEY: True}
