"""From a pydantic model's JSON schema to a structural schema as the API server accepts it."""

import re
from typing import Any

from pydantic import BaseModel

from falcon_operator.api.markers import CEL, REQUIRED_BY_RULE_KEY, RULES_KEY

Schema = dict[str, Any]

# Only what is listed gets through: a keyword nobody thought about is an error here and not in a user's cluster.
_KEPT = {
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    RULES_KEY,
}
_DROPPED = {"title", "discriminator", "examples", "deprecated", "readOnly", REQUIRED_BY_RULE_KEY}


_VALUE = re.compile(r"\{([^{}]+)\}")


class NotStructuralError(TypeError):
    """A model says something that a structural schema cannot."""


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, references inlined and nested defaults reachable."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(raw.pop("$defs", {})).convert(raw, path="", seen=())


class _Converter:
    def __init__(self, definitions: Schema) -> None:
        self.definitions = definitions

    def convert(self, node: Schema, *, path: str, seen: tuple[str, ...]) -> Schema:
        node, seen = self._resolved(node, path, seen)
        out: Schema = {}
        for key, value in node.items():
            if key in _DROPPED or (key == "default" and value in (None, [], {})):
                continue
            if key == "properties":
                out[key] = {name: self._property(name, child, path, seen) for name, child in value.items()}
            elif key == "items":
                out[key] = self.convert(value, path=path, seen=seen)
            elif key == "additionalProperties":
                if isinstance(value, dict):
                    out[key] = self.convert(value, path=path, seen=seen)
            elif key == "propertyNames":
                continue  # what keys may look like is said by rules: a structural schema has no word for it
            elif key == "required":
                out[key] = [name for name in value if not node["properties"][name].get(REQUIRED_BY_RULE_KEY)]
            elif key == "const":
                out["enum"] = [value]
            elif key in ("exclusiveMinimum", "exclusiveMaximum"):
                out[key.replace("exclusiveM", "m")], out[key] = value, True
            elif key == RULES_KEY:
                out[key] = [finished(CEL(**entry), path) for entry in value]
            elif key == "x-kubernetes-int-or-string" or key in _KEPT:
                out[key] = _without_nulls(value) if key == "default" else value
            else:
                raise NotStructuralError(f"{path or 'the root'}: {key} has no structural form")
        if not out.get("required", True):
            del out["required"]
        return out

    def _property(self, name: str, node: Schema, path: str, seen: tuple[str, ...]) -> Schema:
        out = self.convert(node, path=f"{path}.{name}".lstrip("."), seen=seen)
        has_defaults = any("default" in child for child in out.get("properties", {}).values())
        if has_defaults and "anyOf" not in node and "required" not in out:
            # Without it the API server would not look for the defaults inside.
            out.setdefault("default", {})
        return out

    def _resolved(self, node: Schema, path: str, seen: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """The node with its reference followed and a union with null taken apart."""
        while True:
            if "$ref" in node:
                name = node["$ref"].rsplit("/", 1)[-1]
                if name in seen:
                    raise NotStructuralError(f"{path}: {name} contains itself")
                seen = (*seen, name)
                node = _merged(self.definitions[name], node, drop="$ref")
            elif "anyOf" in node:
                options = [option for option in node["anyOf"] if option.get("type") != "null"]
                if len(options) == 1:
                    node = _merged(options[0], node, drop="anyOf")
                elif [option.get("type") for option in options] == ["integer", "string"]:
                    node = _merged({"x-kubernetes-int-or-string": True}, node, drop="anyOf")
                else:
                    raise NotStructuralError(f"{path}: a union of {options} has no structural form")
            else:
                return node, seen


def _merged(inner: Schema, outer: Schema, *, drop: str) -> Schema:
    """What is said where a type is used wins over what the type says of itself; rules add up."""
    merged = {**inner, **{key: value for key, value in outer.items() if key != drop}}
    rules = [*inner.get(RULES_KEY, []), *outer.get(RULES_KEY, [])]
    return {**merged, RULES_KEY: rules} if rules else merged


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def finished(rule: CEL, path: str) -> dict[str, str]:
    """A rule as the API server takes it. The message without values is for when the expression has no result."""
    text = rule.says.replace("{path}", path)
    values = re.findall(_VALUE, text)
    out = {"rule": rule.rule, "message": re.sub(_VALUE, "...", text)}
    if values:
        # format() and not string(): the API server knows a bound for the cost of the former only.
        literal = re.sub(_VALUE, "%s", text.replace("%", "%%")).replace("\\", "\\\\").replace("'", "\\'")
        out["messageExpression"] = f"'{literal}'.format([{', '.join(values)}])"
    return out
