"""Writes docs/fields.md, the list of all fields of a FalconNVFP4Deployment, from the CRD in crds/."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CRD = ROOT / "crds/falconnvfp4deployments.serving.falcon-operator.io.yaml"
PAGE = ROOT / "docs/fields.md"
# Taken over from a pod's spec field by field; Kubernetes documents them.
AS_IN_A_POD = {"scheduling.affinity"}
HEAD = """# Which fields are there?

All fields of a FalconNVFP4Deployment, generated from the CRD by `docs/fields.py`; `kubectl explain fnd.spec` shows the
same. [api.md](api.md) explains what they are for, and which of them are not implemented yet.
"""


def kind(schema: dict[str, Any]) -> str:
    """What a value looks like, in a few words."""
    if schema.get("x-kubernetes-int-or-string"):
        return "number or string"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {kind(schema['items'])}"
    if schema["type"] == "object":
        return "map of strings" if "additionalProperties" in schema else "object"
    if "minimum" in schema or "maximum" in schema:
        return f"{schema['type']}, {schema.get('minimum', '…')} to {schema.get('maximum', '…')}"
    return str(schema["type"])


def default(schema: dict[str, Any]) -> str:
    """The default as JSON; nothing for objects, whose fields have their own."""
    value = schema.get("default")
    return "" if value is None or value == {} else f"`{json.dumps(value)}`"


def rows(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a schema, with its dotted path."""
    for name, child in schema.get("properties", {}).items():
        field = f"{path}{name}"
        items = child.get("items", {})
        yield field + ("[]" if items.get("properties") else ""), child
        if field not in AS_IN_A_POD:
            yield from rows(items or child, f"{field}[]." if items else f"{field}.")


def table(schema: dict[str, Any], with_defaults: bool) -> str:
    """A Markdown table of all fields below a schema."""
    columns = ["field", "value", *(["default"] if with_defaults else []), "meaning"]
    lines = [columns, ["---"] * len(columns)]
    for path, child in rows(schema):
        meaning = child.get("description", "") + (" As in a pod's spec." if path in AS_IN_A_POD else "")
        lines.append([f"`{path}`", kind(child), *([default(child)] if with_defaults else []), meaning])
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def page() -> str:
    """The whole page."""
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    spec, status = table(schema["spec"], True), table(schema["status"], False)
    return f"{HEAD}\n## spec\n\n{spec}\n\n## status\n\n{status}\n"


if __name__ == "__main__":
    PAGE.write_text(page())
