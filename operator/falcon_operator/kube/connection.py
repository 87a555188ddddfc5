"""Where the API server is and how the operator proves who it is."""

from __future__ import annotations

import os
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from falcon_operator import __version__

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A bound token lives for an hour and is replaced well before; reading it again each minute never meets an old one.
TOKEN_SECONDS = 60.0
# asyncio sets 256 KiB aside for each TLS connection, and there are dozens: each watch has one, and each worker.
TLS_BUFFER = 32 * 1024
USER_AGENT = f"falcon-operator/{__version__}"


class ConnectionProblem(Exception):
    """There is no usable way to reach the API server; the text says what to do."""


@dataclass
class Connection:
    """An address, a TLS context, and a source of the bearer token."""

    server: str
    tls: ssl.SSLContext | None
    read_token: Callable[[], str | None]
    _token: str | None = field(default=None, repr=False)
    _token_until: float = 0.0

    def authorization(self) -> dict[str, str]:
        """The header that goes with each request; the token is read again when it is a minute old."""
        now = time.monotonic()
        if now >= self._token_until:
            self._token, self._token_until = self.read_token(), now + TOKEN_SECONDS
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def forget_token(self) -> None:
        """After a 401: read the token at the next request."""
        self._token_until = 0.0

    def session(self) -> aiohttp.ClientSession:
        """A new HTTP session to the API server."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self.tls if self.tls is not None else True)

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.update(self.authorization())
            response = await handler(request)
            if response.status == 401:
                self.forget_token()
            return response

        return aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": USER_AGENT},
            middlewares=(authenticate,),
            read_bufsize=2**20,
        )


async def connect() -> Connection:
    """The connection of the pod's service account, or of KUBECONFIG where the process is not in a pod."""
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    if os.environ.get("KUBECONFIG"):
        return await _from_kubeconfig(os.environ["KUBECONFIG"])
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return await _from_kubeconfig(str(default))
    raise ConnectionProblem(
        "no Kubernetes API server is configured: run in a pod, or set KUBECONFIG to the path of a kubeconfig file"
    )


def _in_cluster() -> Connection:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not token.is_file() or not authority.is_file():
        raise ConnectionProblem(
            f"{SERVICE_ACCOUNT} holds no token and ca.crt: the pod needs automountServiceAccountToken: true"
        )
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        tls=ssl.create_default_context(cafile=str(authority)),
        read_token=lambda: token.read_text().strip(),
    )


async def _from_kubeconfig(path: str) -> Connection:
    # Imported here: outside a pod only, and the package costs 20 MB.
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.config import ConfigException, load_kube_config

    configuration = Configuration()
    try:
        await load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise ConnectionProblem(f"kubeconfig {path} cannot be used: {error}") from error
    tls = None
    if configuration.host.startswith("https:"):
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE

    def read_token() -> str | None:
        value = configuration.api_key.get("BearerToken")
        return value.split(" ", 1)[-1] if value else None

    return Connection(server=configuration.host.rstrip("/"), tls=tls, read_token=read_token)
