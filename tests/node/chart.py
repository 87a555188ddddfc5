"""Install the project's chart with the operator image that the project's Dockerfile gives."""

import os
import subprocess
from pathlib import Path

from tests.node.harness import ROOT

RELEASE, NAMESPACE = "falcon-operator", "falcon-system"


def run(*command: str) -> str:
    """A command of the repository; its output is in the error when it fails."""
    done = subprocess.run([str(ROOT / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def operator_tag() -> str:
    """The tag of the operator's image: the hash of all that it is made of, as in the name of its archive."""
    archive = os.environ.get("FALCON_OPERATOR_ARCHIVE")
    assert archive, "FALCON_OPERATOR_ARCHIVE must be what `testbed/images/build operator` printed; tests/run sets it"
    return Path(archive).stem.removeprefix("operator-")


def gateway() -> list[str]:
    """The value that names the gateway's image, where one was built; without it gateways do not start here."""
    archive = os.environ.get("FALCON_GATEWAY_ARCHIVE")
    if not archive:
        return []
    return [f"--set-string=gateway.image=localhost/falcon-gateway:{Path(archive).stem.removeprefix('gateway-')}"]


def install(helm: str, *extra: str) -> None:
    """Install or upgrade the chart and wait until the operator is ready."""
    run(
        *(f"testbed/{helm}", "upgrade", "--install", RELEASE, "charts/falcon-operator"),
        *("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout=2m"),
        *("--set-string=image.registry=localhost", "--set-string=image.repository=falcon-operator"),
        *(f"--set-string=image.tag={operator_tag()}", "--set-string=image.pullPolicy=Never"),
        *(*gateway(), *extra),
    )


def uninstall(helm: str) -> None:
    """Remove the release; by the chart's default the CRD stays."""
    run(f"testbed/{helm}", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=2m")


def helm_test(helm: str) -> str:
    """What the chart's own test says."""
    return run(f"testbed/{helm}", "test", RELEASE, "--namespace", NAMESPACE, "--timeout=2m")
