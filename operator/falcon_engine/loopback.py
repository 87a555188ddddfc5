"""Asks the engine over loopback, past any proxy that the environment names."""

import http.client
import socket
import time
from collections.abc import Mapping

# Of an answer: /metrics of a busy engine has some 100 KB.
_MOST_BYTES = 4 << 20


def get(port: int, path: str, timeout: float = 2.0) -> tuple[int, str] | None:
    """Status and body, or None where nothing answers. `timeout` is for the whole of it, in seconds."""
    return request("GET", port, path, timeout)


def listens(port: int, timeout: float = 2.0) -> bool:
    """Whether anything may answer: False only where the connection is refused."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def request(
    method: str,
    port: int,
    path: str,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str] | None:
    """Status and the body's first 4 MiB, or None where nothing answers within `timeout` seconds in all."""
    end = time.monotonic() + timeout
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        text = b""
        while len(text) < _MOST_BYTES and (part := response.read1(65536)):
            text += part
            if time.monotonic() > end:
                return None
        return response.status, text.decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
