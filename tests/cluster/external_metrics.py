"""The API external.metrics.k8s.io, as far as an HPA asks it, from what an operator's /metrics says at that moment.

It stands where prometheus-adapter or KEDA stand in a cluster. The API server hands on to it, by an APIService.
"""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster import kubeapi
from tests.cluster.world import Json, wait_for

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
APIS = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"


def values(text: str, path: str, selector: str) -> Json:
    """The answer for `namespaces/NAMESPACE/METRIC`: one item for each series that the selector means."""
    _, namespace, metric = path.split("/")
    wanted = dict(part.split("=", 1) for part in selector.split(",") if part) | {"namespace": namespace}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {"metricName": metric, "metricLabels": sample.labels, "timestamp": now, "value": f"{sample.value * 1000:.0f}m"}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and wanted.items() <= sample.labels.items()
    ]
    return {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}


def _node(client: httpx.Client) -> str:
    """The address of the node that is real, where tests run."""
    nodes = client.get("/api/v1/nodes").raise_for_status().json()["items"]
    [addresses] = [n["status"]["addresses"] for n in nodes if "kwok.x-k8s.io/node" not in n["metadata"]["annotations"]]
    found: str = next(each["address"] for each in addresses if each["type"] == "InternalIP")
    return found


def _server(address: str, certificate: Path, metrics: Callable[[], str]) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = httpx.URL(self.path)
            base, _, path = url.path.partition(f"/apis/{GROUP}/{VERSION}")
            found: Any = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": []}
            if path.strip("/"):
                found = values(metrics(), path.strip("/"), url.params.get("labelSelector", ""))
            body = json.dumps(found).encode()
            self.send_response(404 if base else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test says what matters."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


@contextmanager
def served(client: httpx.Client, namespace: str, folder: Path, metrics: Callable[[], str]) -> Iterator[None]:
    """The API is there, and nobody else's."""
    certificate = folder / "external-metrics.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=external-metrics", "-keyout", str(certificate), "-out", str(certificate) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    with certificate.open("a") as file:
        file.write(Path(f"{certificate}.crt").read_text())
    address = _node(client)
    server = _server(address, certificate, metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name, port = "external-metrics", server.server_address[1]
    service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 443, "targetPort": port}]}}
    client.post(f"/api/v1/namespaces/{namespace}/services", json=service).raise_for_status()
    endpoints = {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    }
    client.post(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", json=endpoints).raise_for_status()
    spec = {
        "group": GROUP,
        "version": VERSION,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": namespace, "name": name, "port": 443},
    }
    body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": spec}
    try:
        kubeapi.apply(client, f"{APIS}/{NAME}", body).raise_for_status()
        wait_for(lambda: client.get(f"/apis/{GROUP}/{VERSION}").is_success, "external metrics", 30)
        yield
    finally:
        client.delete(f"{APIS}/{NAME}")
        server.shutdown()
        server.server_close()
