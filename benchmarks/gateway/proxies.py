"""What stands between client and engine: nothing, the gateway, or nginx, with which it is compared."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from testbed.lab.layout import layout
from testbed.lab.lock import alone
from tests.gateway import gateway
from tests.gateway.gateway import Gateway, until
from tests.gateway.haproxies import HAProxy
from tests.unit.ports import free_port

# Enough for every stream of a run at one engine.
PLENTY = 100_000

# As much of what the gateway does as nginx has: no buffering, least connections, a fresh connection to the engine.
_NGINX = """\
worker_processes 2;
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 9000; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 256k;
  upstream engines {{ least_conn; server 127.0.0.1:{engine}; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """Where clients ask, and the process that is looked at; `pid` is None where there is none."""

    name: str
    port: int
    pid: int | None


@contextlib.asynccontextmanager
async def the_gateway(
    haproxy: HAProxy, folder: Path, engines: list[int], **changes: int | bool
) -> AsyncIterator[Gateway]:
    """The gateway as its image starts it, knowing these engines."""
    given = gateway.settings(**{"per_server": PLENTY, "max_held": 512, **changes})
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(gateway.running(haproxy, folder, given))
        running.names.ports = engines
        await until(lambda: running.knows(len(engines)))
        yield running
        with contextlib.redirect_stdout(io.StringIO()):  # a line for each request, which is for those who debug
            await stack.aclose()


def proxy_of(running: Gateway) -> Proxy:
    """The gateway as one of several."""
    assert running.process is not None
    return Proxy("gateway", running.port, running.process.pid)


@contextlib.asynccontextmanager
async def nginx(folder: Path, engine: int) -> AsyncIterator[Proxy | None]:
    """Nginx in front of one engine; None where it cannot be had."""
    program = _nginx_program()
    if program is None:
        yield None
        return
    port = free_port()
    _write(folder, _NGINX.format(folder=folder, engine=engine, port=port))
    process = await asyncio.create_subprocess_exec(program, "-c", folder / "nginx.conf", "-p", folder)
    try:
        await until(lambda: _listens(port))
        yield Proxy("nginx", port, process.pid)
    finally:
        process.terminate()
        await process.wait()


def _write(folder: Path, config: str) -> None:
    folder.mkdir()
    (folder / "nginx.conf").write_text(config)


def _nginx_program() -> str | None:
    """The machine's own, or Debian's package unpacked in the cache."""
    if found := shutil.which("nginx", path="/usr/local/bin:/usr/bin:/usr/sbin"):
        return found
    folder = layout().cache / "nginx"
    program = folder / "root/usr/sbin/nginx"
    with alone(folder.with_suffix(".lock"), "another download of nginx"):
        if not program.exists() and shutil.which("apt-get"):
            folder.mkdir(parents=True, exist_ok=True)
            download = ["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", "nginx"]
            subprocess.run(download, cwd=folder, capture_output=True, check=False)
            for package in folder.glob("nginx_*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=False)
    works = program.exists() and subprocess.run([program, "-v"], capture_output=True, check=False).returncode == 0
    return str(program) if works else None


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
