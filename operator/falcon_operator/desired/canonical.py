"""One text and one hash for one value, whatever the order of its keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from falcon_operator.api.names import HASH_LENGTH


def content_hash(value: Any) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def without_none(value: Any) -> Any:
    """The value without the keys that hold nothing: server-side apply would take them for owned fields."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(v) for v in value]
    return value


def differing_paths(old: Any, new: Any, path: str = "") -> list[str]:
    """Where the new JSON value is not what the old one was; items of a list of named objects are found by their name.

    A key that only the old value has is no difference: the API server fills in defaults.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            found
            for key in sorted(new)
            for found in differing_paths(old.get(key), new[key], f"{path}.{key}" if path else key)
        ]
    if isinstance(old, list) and isinstance(new, list) and _named(old) and _named(new):
        olds, news = {i["name"]: i for i in old}, {i["name"]: i for i in new}
        return [
            found
            for key in sorted(olds.keys() | news.keys())
            for found in differing_paths(olds.get(key), news.get(key), f"{path}[{key}]")
        ]
    return [] if old == new else [path]


def _named(items: list[Any]) -> bool:
    return all(isinstance(i, Mapping) and "name" in i for i in items)
