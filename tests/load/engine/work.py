"""The fake engine's work: so many requests run at once, the others wait in order, each makes its tokens at its pace."""

import asyncio
from collections import deque
from collections.abc import Callable

from tests.load.engine.settings import Law


class Generation:
    """One request's tokens: `prompt` come in, `tokens` go out.

    `token(index)` is called for each that goes out, `over()` after the last one.
    """

    def __init__(
        self, tokens: int, pace: float, token: Callable[[int], None], over: Callable[[], None], prompt: int = 1
    ) -> None:
        self.tokens, self.pace, self.token, self.over, self.prompt = tokens, pace, token, over, prompt
        self.made = 0
        self.last = 0.0  # when its last token was due
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
        self.prompt_tokens = self.generated = 0
        self.token_seconds = 0.0  # between a token and the one before it, of all that are not a first

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
            if generation.timer is not None:
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
            if generation.timer is not None:
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
        if self._make(generation, due):
            self._admit()
        else:
            due += generation.pace
            generation.timer = self._loop.call_at(due, self._step, generation, due)

    def _make(self, generation: Generation, due: float) -> bool:
        """The token that was due then; returns whether it was the last one."""
        index = generation.made
        generation.made += 1
        self.generated += 1
        if index == 0:
            self.prompt_tokens += generation.prompt
        else:
            self.token_seconds += due - generation.last
        generation.last = due
        generation.token(index)
        if generation.made < generation.tokens:
            return False
        self._running.discard(generation)
        self.finished += 1
        generation.over()
        return True


class LawfulWork(Work):
    """The engine makes a turn after the other, and in each one token for all that run, as a real one does."""

    def __init__(self, sequences: int, law: Law) -> None:
        super().__init__(sequences, 0.0)
        self._law = law
        self._turn: asyncio.TimerHandle | None = None
        self._batch: list[Generation] = []

    def stop(self) -> list[Generation]:
        """The engine is gone."""
        if self._turn is not None:
            self._turn.cancel()
        return super().stop()

    def _admit(self) -> None:
        """A turn begins where none goes on; what comes meanwhile waits for the next."""
        if self._turn is None and self._waiting:
            self._begin(self._loop.time())
        if not self._running and not self._waiting:
            self.idle.set()

    def _begin(self, now: float) -> None:
        """The turn is due by the law from the end of the one before, however late that one was seen."""
        prompts, decoding = 0, len(self._running)
        while self._waiting and len(self._running) < self._sequences:
            generation = self._waiting.popleft()
            self._running.add(generation)
            prompts += generation.prompt
        self._batch = list(self._running)
        if not self._batch:
            self._turn = None
            return
        law = self._law
        due = now + law.step + law.each * decoding + prompts / law.prompt_rate
        self._turn = self._loop.call_at(due, self._end, due)

    def _end(self, due: float) -> None:
        for generation in self._batch:
            if generation in self._running:  # and not gone meanwhile
                self._make(generation, due)
        self._begin(due)
        self._admit()
