"""A gateway that lives on: new configurations and keys, and its own end, without a request lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from functools import partial

from tests.gateway.conftest import Start, StartEngine
from tests.gateway.gateway import IMAGE, KEY, Gateway, settings, until


def bearer(key: str) -> tuple[str, ...]:
    return (f"Authorization: Bearer {key}",)


def reloaded(gateway: Gateway) -> bool:
    _, reloading, after = gateway.log.rpartition("reloading")
    return bool(reloading) and "Loading success" in after


async def test_a_new_configuration_is_taken_without_losing_a_stream(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(body_bytes=1000)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    stream = await gateway.ask("stream", chunks=2)
    await stream.begin()
    large = await gateway.ask("large", pad="x" * 2000)
    await large.error()
    assert large.status == 413
    gateway.configure(settings(body_bytes=10_000))
    failed = []

    async def is_taken() -> bool:
        small = await gateway.get("/v1/models")
        await until(lambda: len(engine.taken) > 1)
        for taken in engine.taken[1:]:
            taken.release()
        await small.answer()
        failed.append(small.status != 200)
        engine.taken[1:] = []
        return reloaded(gateway)

    await until(is_taken)
    again = await gateway.ask("large", pad="x" * 2000)
    await until(lambda: engine.taken[-1].name == "large")
    engine.taken[-1].release()
    assert (await again.answer()).endswith(b"[DONE]\n\n")
    assert not any(failed)
    engine.taken[0].release()
    assert await stream.rest() == b"data: 0 \n\ndata: 1 \n\ndata: [DONE]\n\n"


async def test_a_configuration_that_haproxy_refuses_changes_nothing(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    gateway.names.ports = [(await start_engine()).port]
    good = (gateway.folder / "config/haproxy.cfg").read_text()
    gateway.write(good.replace("balance leastconn", "balance evenly"))
    await until(lambda: "is refused" in gateway.log)
    assert "balance" in gateway.log
    assert (await (await gateway.ask()).answer()).endswith(b"[DONE]\n\n")
    await gateway.stop()
    await gateway.start()  # the container restarts while the configuration is bad
    assert (await (await gateway.ask()).answer()).endswith(b"[DONE]\n\n")
    gateway.write(good.replace("balance leastconn", "balance roundrobin"))
    await until(lambda: "reloading" in gateway.log)
    assert (await (await gateway.ask()).answer()).endswith(b"[DONE]\n\n")


async def test_without_any_good_configuration_it_says_why_and_ends(start: Start) -> None:
    gateway = await start()
    await gateway.stop()
    (gateway.folder / "run/current/haproxy.cfg").unlink()
    gateway.write("nonsense\n")
    ended = await asyncio.to_thread(
        subprocess.run, [IMAGE / "entrypoint"], env=gateway.environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "nonsense" in ended.stderr
    assert "no configuration" in ended.stderr


async def test_requests_that_are_held_during_a_reload_are_answered(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    held = [await gateway.ask(str(number), chunks=2) for number in range(5)]
    await until(partial(gateway.holds, 5))
    gateway.configure(settings(body_bytes=10_000))
    await until(partial(reloaded, gateway))
    # the new process, which answers now, has them, although they came to the old one
    await until(partial(gateway.holds, 5))
    gateway.names.ports = [(await start_engine()).port]
    for one in held:
        assert (await one.answer()).endswith(b"[DONE]\n\n")
        assert one.status == 200


async def test_keys_change_without_a_restart_and_without_cutting_a_stream(
    start: Start, start_engine: StartEngine
) -> None:
    gateway = await start(keys=True)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    stream = await gateway.ask("stream", chunks=2, headers=bearer(KEY))
    await stream.begin()
    gateway.write_keys(main="sk-second\n\n  sk-third  \r\n", other="sk-fourth")
    await until(lambda: gateway_keys(gateway, 3))
    old = await gateway.ask("old", headers=bearer(KEY))
    assert (await old.error())["code"] == "invalid_api_key"
    for key in ("sk-second", "sk-third", "sk-fourth"):
        fresh = await gateway.ask(key, headers=bearer(key))
        await until(lambda key=key: engine.taken[-1].name == key)  # type: ignore[misc]
        engine.taken[-1].release()
        assert (await fresh.answer()).endswith(b"[DONE]\n\n")
    engine.taken[0].more.release()
    assert await stream.chunk() == b"data: 0 \n\n"
    gateway.write_keys()
    await until(lambda: gateway_keys(gateway, 0))
    for key in (KEY, "sk-second", ""):
        gone = await gateway.ask("gone", headers=bearer(key))
        await gone.error()
        assert gone.status == 401
    engine.taken[0].release()
    assert await stream.rest() == b"data: 1 \n\ndata: [DONE]\n\n"
    assert "New worker" not in gateway.log.partition("Loading success")[2]


async def gateway_keys(gateway: Gateway, count: int) -> bool:
    return await gateway.figure("falcon_gateway_keys") == count


async def test_a_gateway_that_is_told_to_stop_ends_its_streams_first(start: Start, start_engine: StartEngine) -> None:
    # a connection that a client keeps open is kept as long, and then the process ends
    gateway = await start({"timeout http-keep-alive 60s": "timeout http-keep-alive 1s"})
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    stream = await gateway.ask("stream", chunks=2)
    await stream.begin()
    gateway.tell(signal.SIGUSR1)
    await until(partial(refuses, gateway))
    engine.taken[0].release()
    assert await stream.rest() == b"data: 0 \n\ndata: 1 \n\ndata: [DONE]\n\n"
    assert gateway.process is not None
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0


async def refuses(gateway: Gateway) -> bool:
    try:
        (await gateway.connect()).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_leaving_waits_until_nothing_is_held(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    held = await gateway.ask()
    await until(partial(gateway.holds, 1))
    leave = await asyncio.create_subprocess_exec(IMAGE / "leave", "60", "0", env=gateway.environment())
    await until((gateway.folder / "run/leaving").exists)
    gateway.configure(settings(body_bytes=10_000))  # no reload any more: the new process would outlive its pod
    assert leave.returncode is None
    gateway.names.ports = [(await start_engine()).port]
    assert (await held.answer()).endswith(b"[DONE]\n\n")
    assert await asyncio.wait_for(leave.wait(), 20) == 0
    assert "reloading" not in gateway.log


async def test_leaving_does_not_wait_longer_than_it_is_told(start: Start) -> None:
    gateway = await start()
    await gateway.ask()
    await until(partial(gateway.holds, 1))
    leave = await asyncio.create_subprocess_exec(IMAGE / "leave", "1", "0", env=gateway.environment())
    assert await asyncio.wait_for(leave.wait(), 20) == 0
    assert await gateway.holds(1)


async def test_what_is_held_when_it_has_to_stop_is_told_to_try_again(start: Start) -> None:
    gateway = await start()
    held = await gateway.ask()
    await until(partial(gateway.holds, 1))
    leave = await asyncio.create_subprocess_exec(IMAGE / "leave", "1", "0", env=gateway.environment())
    await leave.wait()
    gateway.tell(signal.SIGUSR1)
    assert (await held.error())["code"] == "no_engine_ready"
    assert (held.status, held.head.header("retry-after")) == (503, "5")
    held.close()  # else it may be kept as long as any idle connection, and the process with it
    assert gateway.process is not None
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0


async def test_a_gateway_whose_process_dies_ends_so_that_its_container_restarts(start: Start) -> None:
    gateway = await start()
    page = await gateway.fetch("/metrics")
    assert "haproxy_process" in page
    os.kill(gateway.worker, signal.SIGKILL)
    assert gateway.process is not None
    assert await asyncio.to_thread(gateway.process.wait, 30) != 0
