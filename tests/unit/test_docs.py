"""Documentation that cannot lie: its links lead somewhere, its examples are accepted, its lists are the code's."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from tests.unit.charts import ROOT, Json

from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.names import API_VERSION, KIND
from falcon_operator.api.pending import PENDING_FIELDS
from falcon_operator.api.reasons import STANDING_CONDITIONS, Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide.gate import admit

FOLDERS = ("benchmarks", "charts", "docs", "examples", "images", "testbed")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in ROOT.glob(f"{folder}/**/*.md"))])
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")


def headings(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return {anchor(line.lstrip("#")) for line in text.splitlines() if line.startswith("#")}


def column(page: str, head: str, number: int = 1) -> list[str]:
    """The words in one column of all tables whose first line starts with `head`."""
    found, inside = [], False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith(f"| {head} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            found.append(line.split("|")[number].strip().strip("`"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (fragment and fragment not in headings(linked)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # tells of the past
    folders = "charts|crds|docs|examples|images|operator|testbed|tests|benchmarks"
    named = re.findall(rf"(?<![\w/.\-])((?:{folders})/[\w./\-]*[\w/])", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_reason_is_explained_once() -> None:
    assert sorted(column("troubleshooting.md", "reason")) == sorted(reason.value for reason in Reason)


def test_every_standing_condition_is_explained() -> None:
    assert column("api.md", "condition") == [condition.value for condition in STANDING_CONDITIONS]


def test_the_fields_without_effect_are_listed() -> None:
    assert column("api.md", "field") == list(PENDING_FIELDS)


def test_the_list_of_fields_is_generated() -> None:
    script = "import runpy; print(runpy.run_path('docs/fields.py')['page'](), end='')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs/fields.md").read_text() == done.stdout, "run `.venv/bin/python docs/fields.py`"


def strict(schema: Json) -> Json:
    """The CRD's schema as JSON Schema that refuses the fields that the API server would warn about."""
    out: Json = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if "properties" in schema:
        out["properties"] = {name: strict(child) for name, child in schema["properties"].items()}
        out["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        out["items"] = strict(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["integer", "string"]
    return out


@pytest.fixture(scope="module")
def validator() -> Draft4Validator:
    [crd] = (ROOT / "crds").glob("*.yaml")
    version = yaml.safe_load(crd.read_text())["spec"]["versions"][0]
    return Draft4Validator(strict(version["schema"]["openAPIV3Schema"]))


def resources() -> Iterator[Any]:
    """Every FalconNVFP4Deployment in a YAML block of a page, in what a shell block applies, and in examples/."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.S | re.M) + re.findall(
            r"<<EOF\n(.*?)^EOF", text, re.S | re.M
        )
        yield from ((f"{page.name}-{i}", block) for i, block in enumerate(blocks))
    yield from ((path.name, path.read_text()) for path in EXAMPLES)


RESOURCES = [
    pytest.param(document, id=name)
    for name, text in resources()
    for document in yaml.safe_load_all(text)
    if isinstance(document, dict) and document.get("kind") == KIND
]


@pytest.mark.parametrize("document", RESOURCES)
def test_examples_are_accepted(validator: Draft4Validator, document: Json) -> None:
    assert document["apiVersion"] == API_VERSION
    assert [error.message for error in validator.iter_errors(document)] == []
    placed = {**document, "metadata": {"namespace": "default", **document["metadata"]}}
    assert isinstance(answer := admit(placed, OperatorConfig()), Spec), answer


def test_there_are_examples_and_mistakes_in_them_would_show(validator: Draft4Validator) -> None:
    assert len(RESOURCES) >= 5
    for spec in ({"replica": 1}, {"replicas": "1"}, {"engine": {"kvCacheDtype": "fp16"}}, {"replicas": 1001}):
        assert list(validator.iter_errors({"apiVersion": API_VERSION, "kind": KIND, "metadata": {}, "spec": spec}))


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    targets = (ROOT / "Makefile").read_text()
    for command in ("make demo", "make test"):
        assert f"```sh\n{command}\n```" in text
        assert f"\n{command.split()[1]}: " in targets
    assert "exec make test" in (ROOT / ".ci/run").read_text()


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        # In code only: in prose "make" is a verb.
        code = " ".join(re.findall(r"`make ([a-z-]+)", page.read_text()))
        assert set(code.split()) <= targets, page


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    python = {re.split(r"[=<>\[ ]", name)[0] for name in listed}
    go = {
        line.split()[0].removesuffix("/v3").removesuffix("/server")
        for block in re.findall(r"require \((.*?)\)", (ROOT / "testbed/go/go.mod").read_text(), re.S)
        for line in block.splitlines()
        if line.strip() and "// indirect" not in line and not re.search(r"k8s\.io/(?!kubernetes )|helm\.sh", line)
    }
    text = (ROOT / "docs/dependencies.md").read_text()
    assert [name for name in sorted(python | go) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []
