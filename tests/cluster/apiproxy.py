"""A proxy between the operator and the API server, which cuts, refuses and counts as a test wants it."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from aiohttp import web

WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SKIPPED_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "content-encoding", "connection"})

# Called after the API server has done the n-th write and before the client hears of it.
Written = Callable[[int], None]
# Says with which status a request is refused; None lets it through.
Refusal = Callable[[str, str], int | None]


class ApiProxy:
    """Runs in a thread of its own, on loopback."""

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self._server, self._tls = server, tls
        self.written: Written = lambda _: None
        self.refusal: Refusal = lambda _method, _path: None
        self.writes = 0
        self.watches_allowed = True
        self._watches: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api proxy", daemon=True)
        self._thread.start()
        self.url: str = self._do(self._start())

    def close(self) -> None:
        """End the proxy."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut_watches(self) -> int:
        """Close each open watch; returns how many there were."""

        async def cut() -> int:
            watches = list(self._watches)
            for watch in watches:
                watch.cancel()
            return len(watches)

        count: int = self._do(cut())
        return count

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), auto_decompress=False
        )
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in ("true", "1")
        status = self.refusal(request.method, request.path)
        if watch and not self.watches_allowed:
            status = 503
        if status is not None:
            return web.json_response(
                {"kind": "Status", "code": status, "message": "refused by the test"}, status=status
            )
        headers = {key: value for key, value in request.headers.items() if key.lower() not in SKIPPED_HEADERS}
        async with self._session.request(
            request.method,
            self._server + request.raw_path,
            headers=headers,
            data=await request.read() or None,  # empty data would get a content type
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        ) as answer:
            if watch:
                return await self._stream(request, answer)
            content = await answer.read()
            if request.method in WRITING and answer.status < 300:
                self.writes += 1
                self.written(self.writes)
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in SKIPPED_HEADERS}
            if "Content-Encoding" in answer.headers:
                kept["Content-Encoding"] = answer.headers["Content-Encoding"]
            return web.Response(body=content, status=answer.status, headers=kept)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.create_task(self._copy(answer, response))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        try:
            await task
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
        except (ConnectionError, aiohttp.ClientError):
            pass  # one side has gone
        return response

    @staticmethod
    async def _copy(answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
