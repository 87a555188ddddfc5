"""Helm as a class: render the chart, or have it refused, without a cluster."""

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from testbed.lab.layout import layout

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/falcon-operator"
RELEASE, NAMESPACE = "fo", "falcon-system"
# Without a cluster Helm takes the version for one that was set when it was built, which may be none or an old one.
TEMPLATE = (RELEASE, str(CHART), "-n", NAMESPACE, "--kube-version", "1.36.0")
Json = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm_path(major: int) -> str:
    """Where Helm of a major version is: an environment variable, or what the testbed has built."""
    variable, program = {3: ("FALCON_HELM3", "helm3"), 4: ("FALCON_HELM", "helm")}[major]
    path = os.environ.get(variable) or str(layout().bin / program)
    if not os.access(path, os.X_OK):
        pytest.fail(
            f"there is no Helm {major} at {path} to test the chart with: "
            f"build it once with `testbed/build {program}`, or set {variable} to where it is"
        )
    return path


class Helm:
    """One Helm binary, and a folder of what it has rendered in this run, in whatever process."""

    def __init__(self, major: int, renderings: Path) -> None:
        self.major, self.path = major, helm_path(major)
        self.renderings = renderings
        self.rendered: dict[str, list[Json]] = {}
        self.home = tempfile.TemporaryDirectory(prefix="helm-")

    def run(self, *args: str, values: Json | None = None) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": self.home.name,
            "KUBECONFIG": f"{self.home.name}/there-is-no-cluster",
        }
        return subprocess.run(
            [self.path, *args, *(["-f", "-"] if values is not None else [])],
            input=json.dumps(values) if values is not None else None,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    def template(self, values: Json | None = None, *args: str) -> str:
        done = self.run("template", *TEMPLATE, *args, values=values or {})
        if done.returncode:
            pytest.fail(f"helm {self.major} did not render {values}: {done.stderr}")
        return done.stdout

    def render(self, values: Json | None = None, *args: str) -> list[Json]:
        """The objects that the chart renders; without the CRD, which is large, unless it is asked for."""
        values = {"crds": {"enabled": False}} | (values or {})
        key = json.dumps([values, args])
        if key not in self.rendered:
            self.rendered[key] = [item for item in yaml.load_all(self._text(key, values, *args), LOADER) if item]
        return self.rendered[key]

    def _text(self, key: str, values: Json, *args: str) -> str:
        kept = self.renderings / f"{self.major}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.yaml"
        if not kept.exists():
            fresh = kept.with_suffix(f".{os.getpid()}")
            fresh.write_text(self.template(values, *args))
            fresh.rename(kept)
        return kept.read_text()

    def refusal(self, values: Json, *args: str) -> str:
        """What Helm says to values that the chart refuses."""
        done = self.run("template", *TEMPLATE, *args, values=values)
        assert done.returncode, f"helm {self.major} accepted {values}"
        return done.stderr


def one(objects: list[Json], kind: str) -> Json:
    """The only object of a kind."""
    found = [item for item in objects if item["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def pods(objects: list[Json]) -> list[Json]:
    """The specs of all pods in a rendering: the operator's, and the test's where there is one."""
    specs = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
    return specs + [item["spec"] for item in objects if item["kind"] == "Pod"]


def nested(path: str, value: object) -> Json:
    """Values with one dotted path set."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def default_values() -> Json:
    values: Json = yaml.safe_load((CHART / "values.yaml").read_text())
    return values
