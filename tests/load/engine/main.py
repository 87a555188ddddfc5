"""The fake engine as a process: `vllm serve MODEL FLAG...`, with vLLM's manners at the start and at the end."""

import asyncio
import contextlib
import signal
import sys
import time

from tests.load.engine.server import Connection, Engine
from tests.load.engine.settings import REFUSE, Settings, from_command_line

# A process of its own, as vLLM's engine core is: its death is the engine's.
CORE = "import ctypes, signal; ctypes.CDLL(None).prctl(1, signal.SIGKILL); signal.pause()"
BACKLOG = 4096
DEATH_SECONDS = 1.3
TURN_SECONDS = 0.05


class Process:
    """One run, from loading to its exit code."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = Engine(settings)
        self._terminated = asyncio.Event()

    async def run(self) -> int:
        """Load, serve, drain. The exit code is 0 also where the engine's core died."""
        settings, loop = self.settings, asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminated.set)  # a second one changes nothing
        say(f"Initializing a V1 LLM engine (v{settings.version}) with config: model='{settings.model}'")
        server = await loop.create_server(
            lambda: Connection(self.engine), settings.host, settings.port, backlog=BACKLOG, start_serving=False
        )
        core = await asyncio.create_subprocess_exec(sys.executable, "-c", CORE, "EngineCore")
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._terminated.wait(), settings.load)
                say("KeyboardInterrupt: terminated")
                return 1
            self._say_started()
            await server.start_serving()
            say("Application startup complete.")
            return await self._serve(server, core)
        finally:
            if core.returncode is None:
                core.kill()
            await core.wait()

    async def _serve(self, server: asyncio.Server, core: asyncio.subprocess.Process) -> int:
        while not self._terminated.is_set():
            if core.returncode is not None:
                say("EngineDeadError: EngineCore encountered an issue.")
                server.close()  # refused within 0.2 s, as was seen
                self.engine.fail()
                await asyncio.sleep(DEATH_SECONDS)
                return 0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._terminated.wait(), TURN_SECONDS)
        engine, settings = self.engine, self.settings
        say(f"draining up to {settings.shutdown:g} s: {engine.work.running} run, {engine.work.waiting} wait")
        if settings.shutdown <= 0:
            engine.fail()
            await asyncio.sleep(TURN_SECONDS)  # what was said is sent
            return 0
        engine.draining = True
        if settings.drain == REFUSE:
            server.close()
            engine.close_idle()
        if not await self._drained():
            core.kill()
            server.close()
            engine.work.stop()
            say("force killing remaining processes count=1")
            await asyncio.Event().wait()  # seen: the process stays, its streams open and silent
        say("drained")
        await asyncio.sleep(settings.teardown)
        return 0

    async def _drained(self) -> bool:
        try:
            await asyncio.wait_for(self.engine.work.idle.wait(), self.settings.shutdown)
        except TimeoutError:
            return False
        return True

    def _say_started(self) -> None:
        settings = self.settings
        tokens = settings.sequences * settings.max_model_len
        say("Loading weights took 0.01 seconds")
        say(f"GPU KV cache size: {tokens:,} tokens")
        say(f"Maximum concurrency for {settings.max_model_len:,} tokens per request: {settings.sequences:.2f}x")
        say(f"init engine (profile, create kv cache, warmup model) took {settings.load:.2f} seconds")


def say(text: str) -> None:
    """One line of the log, with the time as vLLM writes it."""
    print(f"INFO {time.strftime('%m-%d %H:%M:%S')} [fake.py:1] {text}", file=sys.stderr, flush=True)


async def serve(settings: Settings) -> int:
    """Run one engine in this process to its end."""
    return await Process(settings).run()


def main() -> int:
    """The command line's exit code."""
    try:
        settings = from_command_line(sys.argv[1:])
    except ValueError as error:
        print(f"usage: vllm serve [model_tag] [options]\nvllm serve: error: {error}", file=sys.stderr, flush=True)
        return 2
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
