"""The CustomResourceDefinition, made from the models."""

from functools import cache
from typing import Any, Final

import yaml

from falcon_operator.api import names
from falcon_operator.api.markers import CEL, RULES_KEY
from falcon_operator.api.spec import Spec
from falcon_operator.api.status import UNSEEN_CONDITIONS, Status
from falcon_operator.api.structural import Schema, finished, structural

_HEADER: Final = "# Generated from operator/falcon_operator/api by `make crds`. Do not edit.\n"

_NAME_RULES: Final = (
    CEL(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        '{path} is "{self.metadata.name}": use lower case letters, digits and -, starting with a letter and '
        "ending with a letter or digit, since Services get this name",
    ),
    CEL(
        f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH}",
        '{path} is "{self.metadata.name}" with {self.metadata.name.size()} characters: '
        f"use at most {names.MAX_NAME_LENGTH}, since the names of children are longer",
    ),
)


def _condition_column(name: str, field: str) -> dict[str, Any]:
    path = f'.status.conditions[?(@.type=="Ready")].{field}'
    return {"name": name, "type": "string", "jsonPath": path}


_COLUMNS: Final[list[dict[str, Any]]] = [
    _condition_column("Ready", "status"),
    {"name": "Desired", "type": "integer", "jsonPath": ".status.desiredReplicas"},
    {"name": "Available", "type": "integer", "jsonPath": ".status.readyReplicas"},
    {"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1},
    {"name": "Engine", "type": "string", "jsonPath": ".status.engine.version", "priority": 1},
    {"name": "GPU", "type": "string", "jsonPath": ".status.capacity[*].product", "priority": 1},
    _condition_column("Reason", "reason"),
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def _root_schema() -> Schema:
    spec = {**structural(Spec), "default": {}}
    status = structural(Status)
    status["default"] = {"conditions": UNSEEN_CONDITIONS}
    status["properties"]["conditions"]["default"] = UNSEEN_CONDITIONS
    return {
        "description": "Serves Falcon-H1R-7B in NVFP4 with vLLM. Whoever may create one may in effect create pods "
        "in its namespace.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": f"{names.API_VERSION}."},
            "kind": {"type": "string", "description": f"{names.KIND}."},
            # The name is declared only so that the rules can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
        RULES_KEY: [{**finished(rule, "metadata.name"), "fieldPath": ".metadata.name"} for rule in _NAME_RULES],
    }


@cache
def _manifest_text() -> str:
    return yaml.dump(_plain(_manifest()), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def manifest() -> dict[str, Any]:
    """The CustomResourceDefinition as an object."""
    loaded: dict[str, Any] = yaml.safe_load(_manifest_text())
    return loaded


def _manifest() -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": names.CRD_NAME},
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _COLUMNS,
                    "schema": {"openAPIV3Schema": _root_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                }
            ],
        },
    }


def render() -> str:
    """The CustomResourceDefinition as YAML, for `crds/` and `kubectl apply`."""
    return _HEADER + _manifest_text()


def render_for_chart() -> str:
    """The same, as a template of the chart: left out or kept as the values say."""
    text = _manifest_text()
    name_line = f"  name: {names.CRD_NAME}\n"
    annotations = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    if "{{" in text:
        raise ValueError("the definition contains {{, which Helm would read as a template")
    head, tail = text.split(name_line, 1)
    return f"{{{{- if .Values.crds.enabled }}}}\n{_HEADER}{head}{name_line}{annotations}{tail}{{{{- end }}}}\n"


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: equal parts are written out, so that the file reads and diffs well."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never."""
        return True


def _plain(value: Any) -> Any:
    """The value in YAML's own types: enums become their strings."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
