"""The fake engine's work: so many requests run at once, the others wait in order, each makes its tokens at its pace."""

import asyncio
from collections import deque
from collections.abc import Callable


class Generation:
    """One request's tokens. `token(index)` is called for each, `over()` after the last one."""

    def __init__(self, tokens: int, pace: float, token: Callable[[int], None], over: Callable[[], None]) -> None:
        self.tokens, self.pace, self.token, self.over = tokens, pace, token, over
        self.made = 0
        self.timer: asyncio.TimerHandle | None = None


class Work:
    """All requests of one engine."""

    def __init__(self, sequences: int, prefill: float) -> None:
        self._sequences, self._prefill = sequences, prefill
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Generation] = deque()
        self._running: set[Generation] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.finished = self.aborted = 0

    @property
    def running(self) -> int:
        """How many make tokens."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def add(self, generation: Generation) -> None:
        """A request comes in."""
        self.idle.clear()
        self._waiting.append(generation)
        self._admit()

    def abort(self, generation: Generation) -> None:
        """Its client has gone: running or waiting, it is over at once."""
        if generation in self._running:
            self._running.remove(generation)
            assert generation.timer is not None
            generation.timer.cancel()
        elif generation in self._waiting:
            self._waiting.remove(generation)
        else:
            return
        self.aborted += 1
        self._admit()

    def stop(self) -> list[Generation]:
        """The engine is gone: nothing makes tokens any more. Returns what was unfinished."""
        left = [*self._running, *self._waiting]
        for generation in self._running:
            assert generation.timer is not None
            generation.timer.cancel()
        self._running.clear()
        self._waiting.clear()
        return left

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._sequences:
            generation = self._waiting.popleft()
            self._running.add(generation)
            due = self._loop.time() + self._prefill
            generation.timer = self._loop.call_at(due, self._step, generation, due)
        if not self._running:
            self.idle.set()

    def _step(self, generation: Generation, due: float) -> None:
        """One token; the next one is due by the pace, however late this one was."""
        index = generation.made
        generation.made += 1
        if generation.made < generation.tokens:
            due += generation.pace
            generation.timer = self._loop.call_at(due, self._step, generation, due)
            generation.token(index)
            return
        generation.token(index)
        self._running.discard(generation)
        self.finished += 1
        generation.over()
        self._admit()
