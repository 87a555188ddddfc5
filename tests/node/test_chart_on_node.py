"""The chart on a real cluster, with both Helms: install, test, upgrade, uninstall."""

import pytest
from tests.node import chart
from tests.node.harness import Kubectl

pytestmark = pytest.mark.node
CRD = "falconnvfp4deployments.serving.falcon-operator.io"


@pytest.mark.parametrize("helm", ["helm3", "helm"])
def test_install_test_upgrade_and_uninstall(helm: str) -> None:
    cluster = Kubectl(chart.NAMESPACE)
    chart.install(helm)
    assert "Phase:          Succeeded" in chart.helm_test(helm)

    chart.install(helm, "--set", "operator.workers=8")
    deployment = cluster.get("deployment", chart.RELEASE)
    assert deployment is not None
    assert deployment["status"]["readyReplicas"] == 1
    assert "8" in str(deployment["spec"]["template"]["spec"]["containers"][0])

    chart.uninstall(helm)
    assert cluster.get("deployment", chart.RELEASE) is None
    assert cluster.get("crd", CRD) is not None, "crds.keep is the default: resources must survive an uninstall"
