"""GET with bounds: on the time, on the size of the answer, and on where it may lead."""

from __future__ import annotations

import errno

import aiohttp

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset",
}


class Unreadable(Exception):
    """There is no usable answer; says why in a few words that are the same for the same problem."""


class Http:
    """A client whose connections are closed after each answer: a pod is asked seldom, or a few times in its life.

    `at_once` questions are open at most, any number with 0; others wait for their turn.
    """

    def __init__(self, *, at_once: int = 100) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._at_once = at_once

    async def get(self, url: str, *, at_most: int, seconds: float = 5.0) -> bytes:
        """The body of an answer with status 200 of up to `at_most` bytes. Raises `Unreadable`."""
        if self._session is None:
            # Unpacking is left out: a small answer could become a large one.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=self._at_once),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, 2.0))
        try:
            async with self._session.get(url, allow_redirects=False, timeout=timeout) as response:
                if response.status != 200:
                    raise Unreadable(f"{url} answered with status {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > at_most:
                        raise Unreadable(f"{url} answered with more than {at_most // 1024} KiB")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreadable(f"{url} does not answer: {why(error)}") from error
        return bytes(body)

    async def close(self) -> None:
        """End the open connections."""
        if self._session is not None:
            await self._session.close()


def url_of(address: str, port: int) -> str:
    """The address of an HTTP server on a pod."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


def why(error: Exception) -> str:
    """What went wrong on the way, in a few words that are the same for the same problem."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = getattr(error, "os_error", error)
    if isinstance(reason, OSError) and reason.errno in _WORDS:
        return _WORDS[reason.errno]
    return type(error).__name__
