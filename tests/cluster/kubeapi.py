"""A plain client of the API server for tests: what goes over the wire is what the test says."""

import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class NoClusterError(RuntimeError):
    """There is no API server to test against."""


def _file(entry: dict[str, str], key: str, folder: Path) -> str:
    """The path of a certificate or key that a kubeconfig names or carries."""
    if key in entry:
        return entry[key]
    path = folder / key
    path.write_bytes(base64.b64decode(entry[f"{key}-data"]))
    path.chmod(0o600)
    return str(path)


@contextmanager
def connect() -> Iterator[httpx.Client]:
    """A client for the cluster of KUBECONFIG."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        raise NoClusterError(
            "KUBECONFIG is not set: start the test cluster with `testbed/up` and run these tests with "
            "`testbed/exec .venv/bin/pytest -m cluster`"
        )
    config = yaml.safe_load(Path(kubeconfig).read_text())
    by_name = {kind: {item["name"]: item for item in config[kind]} for kind in ("contexts", "clusters", "users")}
    context = by_name["contexts"][config["current-context"]]["context"]
    cluster = by_name["clusters"][context["cluster"]]["cluster"]
    user = by_name["users"][context["user"]]["user"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tls = ssl.create_default_context(cafile=_file(cluster, "certificate-authority", folder))
        tls.load_cert_chain(_file(user, "client-certificate", folder), _file(user, "client-key", folder))
    with httpx.Client(base_url=cluster["server"], verify=tls, timeout=30, trust_env=False) as client:
        yield client


def apply(
    client: httpx.Client, path: str, body: dict[str, Any], *, manager: str = "tests", force: bool = True
) -> httpx.Response:
    """Server-side apply of one object."""
    return client.patch(
        path,
        content=json.dumps(body),  # which is YAML that no reader takes a name such as `n` for a boolean in
        headers={"Content-Type": APPLY},
        params={"fieldManager": manager, "force": force},
    )


def wait_for_established(client: httpx.Client, crd: str) -> None:
    """Waits until a CustomResourceDefinition is established and its resources are served."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    params = {"watch": "true", "fieldSelector": f"metadata.name={crd}", "timeoutSeconds": "60"}
    plural, group = crd.split(".", 1)
    with client.stream("GET", path, params=params, timeout=70) as events:
        for line in events.iter_lines():
            definition = json.loads(line)["object"]
            conditions = definition.get("status", {}).get("conditions") or []
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                version = definition["spec"]["versions"][0]["name"]
                break
        else:
            raise AssertionError(f"{crd} was not established within 60 s")
    deadline = time.monotonic() + 60
    while client.get(f"/apis/{group}/{version}/{plural}", params={"limit": 1}).status_code == httpx.codes.NOT_FOUND:
        assert time.monotonic() < deadline, f"{crd} is established and was not served within 60 s"
        time.sleep(0.02)
