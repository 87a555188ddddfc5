"""Does a live object already hold what we would apply?

Server-side apply without a change costs a request and nothing else, but a settled operator sends no request at all.
So the desired object is compared with the live one first: its hash says whether we ask for something new, and the
field by field comparison says whether somebody changed what we asked for before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from falcon_operator.api import names
from falcon_operator.desired import quantity

# Lists that the API server merges by key, and the key. All other lists are compared as a whole.
_LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
}
_QUANTITIES = frozenset({"requests", "limits", "sizeLimit", "divisor"})


def differences(desired: Mapping[str, Any], live: Mapping[str, Any]) -> frozenset[str]:
    """The paths at which the live object does not hold what is desired; more in it than desired is no difference."""
    found: list[str] = []
    _compare(desired, live, "", False, found)
    return frozenset(found)


def applied_hash(body: Mapping[str, Any]) -> str | None:
    """The hash of what was last applied, as the object itself records it."""
    value: str | None = ((body.get("metadata") or {}).get("annotations") or {}).get(names.ANNOTATION_APPLIED)
    return value


def controller_uid(body: Mapping[str, Any]) -> str | None:
    """The UID of the object that controls this one."""
    for reference in (body.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            uid: str = reference["uid"]
            return uid
    return None


def _compare(desired: Any, live: Any, path: str, quantities: bool, found: list[str]) -> None:
    if desired == live:
        return
    if isinstance(desired, dict):
        # An empty map and no map are one to the API server, except where the empty one means something (emptyDir).
        if not isinstance(live, dict):
            if desired or live is not None:
                found.append(path)
            return
        for key, value in desired.items():
            _compare(value, live.get(key), f"{path}.{key}", quantities or key in _QUANTITIES, found)
    elif isinstance(desired, list | tuple):
        _compare_lists(desired, live, path, quantities, found)
    elif desired != live and not (quantities and _same_quantity(desired, live)) and not _same_zero(desired, live):
        found.append(path)


def _compare_lists(desired: Sequence[Any], live: Any, path: str, quantities: bool, found: list[str]) -> None:
    if not isinstance(live, list | tuple):
        if desired or live is not None:
            found.append(path)
        return
    keys = _LIST_KEYS.get(path.rpartition(".")[2])
    if keys is None:
        if len(desired) != len(live):
            found.append(path)
            return
        for index, (mine, theirs) in enumerate(zip(desired, live, strict=True)):
            _compare(mine, theirs, f"{path}[{index}]", quantities, found)
        return
    by_key = {tuple(item.get(key) for key in keys): item for item in live}
    for item in desired:
        identity = tuple(item.get(key) for key in keys)
        label = "/".join(str(part) for part in identity)
        if identity in by_key:
            _compare(item, by_key[identity], f"{path}[{label}]", quantities, found)
        else:
            found.append(f"{path}[{label}]")


def _same_zero(desired: Any, live: Any) -> bool:
    """`false`, 0 and "" are left out of the stored object where the API says omitempty."""
    return live is None and desired in (False, 0, "")


def _same_quantity(desired: Any, live: Any) -> bool:
    try:
        return quantity.parse(desired) == quantity.parse(live)
    except (ValueError, TypeError, KeyError):
        return False
