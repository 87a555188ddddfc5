"""Values and defaults from a structural schema, for tests of the definition."""

import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
_PATTERN = re.compile(r"self\.matches\(r'\^\(\?:(.*?)\)\$'\)")


def with_defaults(schema: Json, value: Any) -> Any:
    """The value with the schema's defaults put in, as the API server does it: from the outside in."""
    if not isinstance(value, dict):
        return value
    out = dict(value)
    for name, child in schema.get("properties", {}).items():
        if name not in out and "default" in child:
            out[name] = child["default"]
        if name in out:
            out[name] = with_defaults(child, out[name])
    return out


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, as its holder and key."""
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(child, dict | list):
            yield from leaves(child)


def valid_values(schema: Json) -> st.SearchStrategy[Any]:
    """Values that the schema's keywords and its rules on single strings accept."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from([1, 8, "2", "500m", "1.5Gi"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"]).filter(bool)
        case "number":
            return st.floats(schema["minimum"], schema["maximum"])
        case "string":
            return _texts(schema)
        case "array":
            return _lists(schema)
    if "additionalProperties" in schema:
        return st.dictionaries(st.sampled_from(["team", "example.com/x"]), valid_values(schema["additionalProperties"]))
    required = set(schema.get("required", ()))
    # Required by a rule and not by the schema, so that its sentence is the one that users see.
    required |= {"revision"} & schema["properties"].keys()
    fields = {name: valid_values(child) for name, child in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required},
    )


def _texts(schema: Json) -> st.SearchStrategy[str]:
    rules = " ".join(rule["rule"] for rule in schema.get("x-kubernetes-validations", []))
    if "duration(" in rules:
        return st.sampled_from(["10s", "5m", "1h", "1m30s"])
    if "quantity(" in rules:
        return st.sampled_from(["1", "50Gi", "1.5Ti"])
    if patterns := _PATTERN.findall(rules):
        return st.from_regex(patterns[0], fullmatch=True).filter(lambda text: len(text) <= schema["maxLength"])
    letters = st.characters(codec="ascii", categories=["L", "N"])
    return st.text(letters, min_size=schema.get("minLength", 0), max_size=min(schema["maxLength"], 12))


def _lists(schema: Json) -> st.SearchStrategy[list[Any]]:
    unique: Callable[[Any], Any] | None = None
    match schema.get("x-kubernetes-list-type"):
        case "map":
            [key] = schema["x-kubernetes-list-map-keys"]
            unique = itemgetter(key)
        case "set":
            unique = str
    return st.lists(valid_values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique_by=unique)
