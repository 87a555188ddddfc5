"""The launcher's own HTTP server: `/report` and `/started`, and nothing else."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VARIABLE = "FALCON_REPORT_PORT"
PORT = 8001
# Clients at a time. One more, and the one that has been there longest is hung up on: a client that hangs keeps nobody
# else from an answer.
MOST_CLIENTS = 16
CLIENT_SECONDS = 5.0

# A path's answer: status, content type, text.
Answer = Callable[[], tuple[int, str, str]]


def port() -> int:
    """Where it listens; the variable is for engines that share one network."""
    stated = os.environ.get(VARIABLE, "")
    return int(stated) if stated.isdigit() and int(stated) <= 65535 else PORT


def serve(answers: Mapping[str, Answer], log: Callable[[str], None]) -> ThreadingHTTPServer | None:
    """Answer from threads that end with the process. None, and a line in the log, where the port cannot be had."""
    try:
        server = _Server(("", port()), answers)
    except OSError as e:
        log(f"warning: no report: port {port()} cannot be listened on ({e.strerror}); the startup probe will fail")
        return None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    timeout = CLIENT_SECONDS  # of one wait; the whole of it is bounded by the number of clients

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path.partition("?")[0])
        status, kind, text = answer() if answer else (404, "text/plain", "/report or /started\n")
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes would fill the engine's log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self._clients: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As the base, without its look at the host's name, which may ask a DNS that does not answer."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "launcher", int(self.socket.getsockname()[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room, then answer in a thread."""
        with self._lock:
            if len(self._clients) >= MOST_CLIENTS:
                _hang_up(self._clients.pop(next(iter(self._clients))))
            self._clients[id(request)] = request
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The client has its answer."""
        with self._lock:
            self._clients.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to be told."""


def _hang_up(client: socket.socket) -> None:
    try:
        client.shutdown(socket.SHUT_RDWR)  # ends the wait of the thread that has it
    except OSError:
        return
