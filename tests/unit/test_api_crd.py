"""The definition on disk is the one of the models, and says only what the API server can take."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.unit.schemas import ROOT, leaves, valid_values, with_defaults

from falcon_operator.api import crd, names
from falcon_operator.api.resource import InvalidResourceError, parse
from falcon_operator.api.spec import Spec
from falcon_operator.api.structural import NotStructuralError, structural

Json = dict[str, Any]
FILE = f"{names.CRD_NAME}.yaml"
CHART_COPY = ROOT / "charts/falcon-operator/templates/crds" / FILE
VERSION = crd.manifest()["spec"]["versions"][0]
SCHEMA: Json = VERSION["schema"]["openAPIV3Schema"]
SPEC: Json = SCHEMA["properties"]["spec"]


@pytest.mark.parametrize(
    ("path", "text"),
    [(ROOT / "crds" / FILE, crd.render()), (CHART_COPY, crd.render_for_chart())],
    ids=["crds", "chart"],
)
def test_the_file_on_disk_is_what_the_models_say(path: Any, text: str) -> None:
    assert path.read_text() == text, f"{path.relative_to(ROOT)} differs from the models: run `make crds`"


def test_it_is_small_enough_for_client_side_apply() -> None:
    assert len(crd.render()) < 200_000


def nodes(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


SPEC_NODES = list(nodes(SPEC, "spec"))
ALL_NODES = [*SPEC_NODES, *nodes(SCHEMA["properties"]["status"], "status")]
FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable", "uniqueItems"}


def complaints(node: Json) -> Iterator[str]:
    """What is wrong with one node, the nodes inside left out."""
    if unfit := FORBIDDEN & node.keys():
        yield f"uses {unfit}"
    if ("type" in node) == (node.get("x-kubernetes-int-or-string") is True):
        yield "has no type, or two"
    match node.get("type"):
        case "string" if not {"maxLength", "enum", "format"} & node.keys():
            yield "is an unbounded string"
        case "array" if "maxItems" not in node:
            yield "is an unbounded list"
        case "object" if "properties" not in node and not {"maxProperties", "additionalProperties"} <= node.keys():
            yield "is an unbounded map"
    for name, child in node.get("properties", {}).items():
        if not re.fullmatch(r"[A-Z`a-z].*\.", child.get("description", "")):
            yield f"describes {name} without a sentence"
        if "namespace" in name.lower():
            yield f"refers to another namespace with {name}"


def test_every_node_is_structural_bounded_and_described() -> None:
    assert [f"{path} {complaint}" for path, node in ALL_NODES for complaint in complaints(node)] == []


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"type": "string"},
        {"type": "array", "items": {}},
        {"type": "object", "additionalProperties": {}},
        {"type": "integer", "anyOf": []},
        {"type": "object", "properties": {"a": {"description": "no sentence"}}},
        {"type": "object", "properties": {"secretNamespace": {"description": "A sentence."}}},
    ],
)
def test_the_check_of_nodes_finds_faults(node: Json) -> None:
    assert len(list(complaints(node))) == 1


def test_every_sentence_names_its_field() -> None:
    rules = [(path, rule) for path, node in SPEC_NODES for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) > 50
    for path, rule in rules:
        field = path.removeprefix("spec").replace("[]", "").lstrip(".")
        assert rule["message"].startswith(field)
        assert "{" not in rule["message"]
        assert "..." not in rule["message"] or "messageExpression" in rule


def test_the_schema_has_the_models_defaults() -> None:
    defaulted = with_defaults(SCHEMA, {"metadata": {"name": "a", "namespace": "b"}})
    assert parse(defaulted).spec == Spec()


def resource(spec: Any) -> Mapping[str, Any]:
    return {"metadata": {"name": "a", "namespace": "b"}, "spec": spec}


def read(spec: Any) -> bool:
    try:
        parse(resource(spec))
    except InvalidResourceError:
        return False
    return True


VALIDATOR = jsonschema.Draft202012Validator(SPEC)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(valid_values(SPEC))
def test_what_the_schema_accepts_the_operator_reads(spec: Json) -> None:
    assert VALIDATOR.is_valid(spec), list(VALIDATOR.iter_errors(spec))
    parsed = parse(resource(spec)).spec
    assert VALIDATOR.is_valid(parsed.manifest())
    assert parse(resource(parsed.manifest())).spec == parsed


WRONG = [{"a": {}}, [{}], -(10**12), 10**12, "\x00" * 9000]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(valid_values(SPEC), st.data())
def test_what_the_schema_refuses_the_operator_refuses(spec: Json, data: st.DataObject) -> None:
    places = list(leaves(spec))
    assume(places)
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(st.sampled_from(WRONG))
    assume(not VALIDATOR.is_valid(spec))
    assert not read(spec)


class Loop(BaseModel):
    again: "Loop | None" = None


class Either(BaseModel):
    value: int | bool


@pytest.mark.parametrize(("model", "complaint"), [(Loop, "contains itself"), (Either, "union")])
def test_what_has_no_structural_form_is_an_error(model: type[BaseModel], complaint: str) -> None:
    with pytest.raises(NotStructuralError, match=complaint):
        structural(model)
