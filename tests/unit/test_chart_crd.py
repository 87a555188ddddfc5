"""The chart's CustomResourceDefinition is the one of crds/, and stays behind unless told otherwise."""

import pytest
import yaml
from tests.unit.charts import ROOT, Helm, Json, one

KEEP = {"helm.sh/resource-policy": "keep"}


def generated() -> Json:
    """The file that `make crds` writes."""
    [path] = (ROOT / "crds").glob("*.yaml")
    crd: Json = yaml.safe_load(path.read_text())
    return crd


def without_keep(crd: Json) -> Json:
    annotations = {k: v for k, v in crd["metadata"].get("annotations", {}).items() if k not in KEEP}
    metadata = {k: v for k, v in crd["metadata"].items() if k != "annotations"}
    return {**crd, "metadata": {**metadata, **({"annotations": annotations} if annotations else {})}}


@pytest.mark.parametrize("keep", [True, False])
def test_the_chart_installs_the_generated_definition(helm: Helm, keep: bool) -> None:
    crd = one(helm.render({"crds": {"enabled": True, "keep": keep}}), "CustomResourceDefinition")
    assert (crd["metadata"].get("annotations", {}).items() >= KEEP.items()) is keep
    assert without_keep(crd) == without_keep(generated())


def test_no_definition_where_it_is_not_wanted(helm: Helm) -> None:
    assert not [i for i in helm.render({"crds": {"enabled": False}}) if i["kind"] == "CustomResourceDefinition"]


def test_the_chart_holds_no_resource_of_ours(helm: Helm) -> None:
    # At the first install there is no definition yet that such a resource could be checked against.
    assert not [item for item in helm.render({"crds": {"enabled": True}}) if item["kind"] == "FalconNVFP4Deployment"]
