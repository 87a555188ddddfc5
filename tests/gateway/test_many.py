"""What thousands of open streams cost one gateway."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.gateway import Gateway, until
from tests.gateway.haproxies import HAProxy

STREAMS = 5000
MEGABYTES = 60


def resident(gateway: Gateway) -> float:
    """Megabytes of all processes of the gateway, what they share counted once, as the kernel counts for a pod."""
    assert gateway.process is not None
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        if _descends(int(entry.name), gateway.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return False
    return False


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * STREAMS
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this machine allows {hard} open files a process, {STREAMS} streams need {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


@pytest.mark.usefixtures("many_files")
async def test_five_thousand_streams_fit_into_sixty_megabytes(
    haproxy: HAProxy, start: Start, start_engine: StartEngine
) -> None:
    if haproxy.version >= (3, 0):
        pytest.skip("the image has HAProxy 2.6; 3.0 was seen to take 57 to 64 MB, as busy as the machine is")
    gateway = await start(per_server=STREAMS)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    before = resident(gateway)
    streams = []
    for number in range(STREAMS):
        streams.append(await gateway.ask(str(number), chunks=3))
        if number % 200 == 199:  # no more at once than the listen queues hold
            await until(lambda: len(engine.taken) == len(streams), limit=60)
    for taken in engine.taken:
        taken.more.release()
    await asyncio.gather(*(stream.begin() for stream in streams))
    assert all([stream.status == 200 for stream in streams])
    size = resident(gateway)
    print(f"{STREAMS} open streams: {size:.0f} MB, {before:.0f} MB without")
    assert size <= MEGABYTES, f"{STREAMS} open streams take {size:.0f} MB, {before:.0f} MB without"
    for taken in engine.taken:
        taken.release()
    answers = await asyncio.gather(*(stream.rest() for stream in streams))
    assert all(answer.endswith(b"data: 2 \n\ndata: [DONE]\n\n") for answer in answers)
