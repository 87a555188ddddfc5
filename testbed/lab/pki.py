"""The cluster's certificates, made once by openssl and kept until `down --purge`."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .layout import CLUSTER_DOMAIN, KUBERNETES_SERVICE_IP, MOST_NODES, NODE, NODE_IP
from .progress import TestbedError

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """One certificate: its file name, who signs it and whom it names."""

    name: str
    subject: str
    signer: str = "ca"
    names: tuple[str, ...] = ()


AUTHORITIES = {"ca": "/CN=falcon-testbed", "front-proxy-ca": "/CN=falcon-testbed-front-proxy"}
CERTIFICATES = (
    Certificate(
        "apiserver",
        "/CN=kube-apiserver",
        names=(
            "DNS:localhost",
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            f"DNS:kubernetes.default.svc.{CLUSTER_DOMAIN}",
            "IP:127.0.0.1",
            f"IP:{NODE_IP}",
            f"IP:{KUBERNETES_SERVICE_IP}",
        ),
    ),
    Certificate("admin", "/O=system:masters/CN=admin"),
    Certificate("kube-controller-manager", "/CN=system:kube-controller-manager"),
    Certificate("kube-scheduler", "/CN=system:kube-scheduler"),
    Certificate("kube-proxy", "/CN=system:kube-proxy"),
    Certificate("kubelet", f"/O=system:nodes/CN=system:node:{NODE}"),
    *(
        Certificate(f"kubelet-{number}", f"/O=system:nodes/CN=system:node:{NODE}-{number}")
        for number in range(2, MOST_NODES + 1)
    ),
    Certificate("kwok", "/O=system:masters/CN=kwok"),
    Certificate("netpol", "/O=system:masters/CN=netpol"),
    Certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Certificate("front-proxy-client", "/CN=front-proxy-client", signer="front-proxy-ca"),
)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"openssl {arguments[0]} failed:\n{done.stderr[-2000:]}")


def _authority(folder: Path, name: str, subject: str) -> None:
    certificate = folder / f"{name}.crt"
    if not certificate.exists():
        key = str(folder / f"{name}.key")
        _openssl("req", "-x509", *_KEY, "-days", _DAYS, "-subj", subject, "-keyout", key, "-out", str(certificate))


def _issue(folder: Path, wanted: Certificate) -> None:
    certificate = folder / f"{wanted.name}.crt"
    if certificate.exists():
        return
    key, request, extensions = (folder / f"{wanted.name}.{end}" for end in ("key", "csr", "ext"))
    lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if wanted.names:
        lines.append("subjectAltName=" + ",".join(wanted.names))
    extensions.write_text("\n".join(lines) + "\n")
    _openssl("req", *_KEY, "-subj", wanted.subject, "-keyout", str(key), "-out", str(request))
    signer = ("-CA", str(folder / f"{wanted.signer}.crt"), "-CAkey", str(folder / f"{wanted.signer}.key"))
    serial = ("-set_serial", f"0x{secrets.token_hex(8)}")
    _openssl(
        *("x509", "-req", "-in", str(request), *signer, *serial, "-days", _DAYS),
        *("-extfile", str(extensions), "-out", str(certificate)),
    )
    request.unlink()
    extensions.unlink()


def make(folder: Path) -> None:
    """Make every certificate that is not there yet."""
    for name, subject in AUTHORITIES.items():
        _authority(folder, name, subject)
    for certificate in CERTIFICATES:
        _issue(folder, certificate)
    service_accounts = folder / "service-accounts.key"
    if not service_accounts.exists():
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(service_accounts))
