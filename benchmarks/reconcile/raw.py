"""The raw writer: the same objects, rendered beforehand, with the same number of requests in flight, and no operator.

`python -m benchmarks.reconcile.raw FILE IN_FLIGHT`; each line of the file is the path and the body of one object.
Prints the seconds until the last object, and until the last Deployment where those are written first.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from falcon_operator.api.names import MANAGER_CHILDREN
from falcon_operator.kube.connection import connect


async def write(lines: list[Any], in_flight: int) -> dict[str, float]:
    """Write all objects."""
    todo = iter([(path, json.dumps(body, separators=(",", ":")).encode(), body["kind"]) for path, body in lines])
    connection = await connect()
    session = connection.session()
    last = {"object": 0.0, "Deployment": 0.0}

    async def worker() -> None:
        for path, data, kind in todo:
            async with session.patch(
                f"{connection.server}{path}?fieldManager={MANAGER_CHILDREN}",
                data=data,
                headers={"Content-Type": "application/apply-patch+yaml"},
            ) as answer:
                await answer.read()
                if answer.status >= 300:
                    raise RuntimeError(f"{path}: {answer.status}")
            last["object"] = time.monotonic() - begin
            if kind == "Deployment":
                last[kind] = last["object"]

    async with session.get(f"{connection.server}/version"):
        begin = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    await session.close()
    return last


if __name__ == "__main__":
    objects = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    print(json.dumps(asyncio.run(write(objects, int(sys.argv[2])))))
