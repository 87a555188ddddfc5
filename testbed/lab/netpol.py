"""The NetworkPolicy agent: a component that keeps the node's nftables table at what the policies say.

Its arguments: the API server's URL, the folder of certificates, the node's name. For tests, not for production: it
watches everything and makes the whole table anew at each change. A new pod is unprotected until its address is in the
API.
"""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .policy_rules import World, no_rules, ruleset

_PATHS = {
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}
_WATCH_SECONDS = 300
_GATHER_SECONDS = 0.05  # what comes together is applied together
_RETRY_SECONDS = 0.5


class Store:
    """The objects of one kind, kept by a thread of its own; `changed` is set at each change."""

    def __init__(self, path: str, server: str, tls: ssl.SSLContext, changed: threading.Event) -> None:
        self._path, self._host, self._tls, self._changed = path, urlsplit(server).netloc, tls, changed
        self._lock = threading.Lock()
        self._objects: dict[str, Any] = {}
        self.listed = threading.Event()

    def objects(self) -> list[Any]:
        """Return the objects as they are now."""
        with self._lock:
            return list(self._objects.values())

    def run(self) -> None:
        """List and watch for good; whatever goes wrong, list again."""
        while True:
            try:
                self._watch(self._list())
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                print(f"{self._path}: {error!r}", flush=True)
                time.sleep(_RETRY_SECONDS)

    def _get(self, query: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self._host, context=self._tls, timeout=_WATCH_SECONDS + 30)
        connection.request("GET", f"{self._path}{query}")
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"{response.status} {response.reason}")
        return response

    def _list(self) -> str:
        with self._get("") as response:
            listed = json.load(response)
        with self._lock:
            self._objects = {item["metadata"]["uid"]: item for item in listed["items"]}
        self.listed.set()
        self._changed.set()
        return str(listed["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> None:
        with self._get(f"?watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}") as response:
            while line := response.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                uid = event["object"]["metadata"]["uid"]
                with self._lock:
                    if event["type"] == "DELETED":
                        self._objects.pop(uid, None)
                    else:
                        self._objects[uid] = event["object"]
                self._changed.set()


def _nft(text: str) -> bool:
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"nft: {done.stderr}\n{text}", flush=True)
    return done.returncode == 0


def _end(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def main(server: str, pki: Path, node: str) -> None:
    """Apply the policies until it is told to end; then nothing is enforced any more."""
    signal.signal(signal.SIGTERM, _end)
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    tls.load_cert_chain(pki / "netpol.crt", pki / "netpol.key")
    changed = threading.Event()
    stores = {kind: Store(path, server, tls, changed) for kind, path in _PATHS.items()}
    for store in stores.values():
        threading.Thread(target=store.run, daemon=True).start()
    for store in stores.values():
        store.listed.wait()
    applied = ""
    try:
        while True:
            changed.wait()
            time.sleep(_GATHER_SECONDS)
            changed.clear()
            labels = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in stores["namespaces"].objects()}
            rules = ruleset(World(stores["pods"].objects(), stores["policies"].objects(), labels), node)
            if rules == applied:
                continue
            if _nft(rules):
                applied = rules
                print(f"applied {rules.count(' chain ') - 2} chains", flush=True)
            else:
                time.sleep(_RETRY_SECONDS)
                changed.set()
    finally:
        _nft(no_rules())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
