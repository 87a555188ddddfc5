"""One repository as the Hugging Face Hub hands it out, by the standard library alone: it also runs in a pod."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY, COMMIT = "tiny/falcon", "a" * 40


class Hub(ThreadingHTTPServer):
    """One repository at one commit."""

    def __init__(self, directory: Path, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, _Answers)
        self.directory, self.status = directory, 200
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.claimed: dict[str, int] = {}  # sizes that are said to be others than they are

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.directory.iterdir())}

    def refuse(self, status: int, code: str = "") -> None:
        self.status, self.headers = status, {"X-Error-Code": code} if code else {}


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if self.server.status != 200:
            self._answer(self.server.status, b"{}", self.server.headers)
        elif path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            siblings = [
                {"rfilename": name, "size": self.server.claimed.get(name, len(data)), "blobId": _sum(data)}
                for name, data in self.server.files.items()
            ]
            body = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": []}
            self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _sum(data)}
                for name, data in self.server.files.items()
            ]
            self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif (name := path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")) in self.server.files:
            data = self.server.files[name]
            self._answer(200, data, {"ETag": f'"{_sum(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _sum(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
