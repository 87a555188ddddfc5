"""One engine in virtual time: continuous batching with chunked prompts, a few operations an event, none a token.

A step gives each decoding sequence one token and takes `step + each * sequences` seconds, and `tokens / prompt_rate`
more for the prompt tokens in it, of which up to `chunk` are computed in one step, first come first served. A prompt
that is complete emits its first token at the end of that step. While nothing is prompted and no sequence ends, all
steps take as long, so a stretch of them is one event; a request that comes ends it with the step in which it comes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

# Of a step: what is earlier than a boundary by less came with it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class EngineLaw:
    """What one engine can do; times in seconds."""

    prompt_rate: float  # tokens a second
    step: float
    each: float  # for each sequence in a step
    chunk: int = 8192  # prompt tokens in one step at most
    most: int = 256  # sequences at a time (max_num_seqs); further ones wait in the engine


# Measured with vLLM on one H200: NVFP4 weights; the same with a tuned state-update kernel; BF16 weights, whose prompt
# rate is derived from a run with long prompts.
ENGINES: Mapping[str, EngineLaw] = {
    "h200": EngineLaw(17_000.0, 0.0054, 0.000144),
    "h200-tuned": EngineLaw(17_000.0, 0.0044, 0.000095),
    "h200-bf16": EngineLaw(29_000.0, 0.0066, 0.000108),
}


class Engine:
    """It turns at `next_at`; requests are known by a number that the caller gives them."""

    __slots__ = (
        "_batch",
        "_begun",
        "_chunk",
        "_complete",
        "_decoding",
        "_each_step",
        "_law",
        "_prompting",
        "_queue",
        "_steps",
        "_tokens",
        "finished",
        "generated",
        "load",
        "next_at",
        "prompted",
        "token_seconds",
        "tokens",
    )

    def __init__(self, law: EngineLaw) -> None:
        self._law = law
        self._tokens = 0  # that a sequence has got which was there all the time
        self._decoding: list[tuple[int, int]] = []  # a heap: `_tokens` at the end of the sequence, its request
        self._prompting: deque[tuple[int, int, int, int]] = deque()  # request, tokens left, tokens, answer
        self._queue: deque[tuple[int, int, int]] = deque()  # request, tokens, answer
        # The stretch: when it began, its steps and how long each takes, its sequences.
        self._begun, self._steps, self._each_step, self._batch = 0.0, 0, 0.0, 0
        self._complete, self._chunk = 0, 0  # prompts that this step completes, tokens of the next one that it computes
        self.next_at = math.inf
        self.load = 0  # requests that have not finished
        # Counters: tokens, tokens of complete prompts, requests; tokens but the first, and the seconds before them.
        self.generated, self.prompted, self.finished = 0, 0, 0
        self.tokens, self.token_seconds = 0, 0.0

    @property
    def running(self) -> int:
        """Sequences of the batch."""
        return len(self._decoding) + len(self._prompting)

    @property
    def waiting(self) -> int:
        """Requests that the batch has no room for."""
        return len(self._queue)

    def put(self, request: int, prompt: int, answer: int, now: float) -> None:
        """A request comes."""
        self._queue.append((request, prompt, answer))
        self.load += 1
        if self.next_at == math.inf:
            self._begin(now)
        elif self._steps > 1 and len(self._decoding) < self._law.most:
            # Nothing is prompted, so the stretch would go on: the step in which this came is its last.
            steps = max(math.ceil((now - self._begun) / self._each_step - _ROUNDING), 0)
            if steps < self._steps:
                self._steps = steps
                self.next_at = self._begun + steps * self._each_step

    def turn(self) -> tuple[list[int], list[int]]:
        """What the stretch that ends at `next_at` has brought: requests with their first token, requests that ended."""
        now, steps, decoding = self.next_at, self._steps, self._decoding
        self._tokens += steps
        many = steps * self._batch
        self.generated += many
        self.tokens += many
        self.token_seconds += many * self._each_step
        ended: list[int] = []
        while decoding and decoding[0][0] <= self._tokens:
            ended.append(heappop(decoding)[1])
        begun: list[int] = []
        for _ in range(self._complete):
            request, _, prompt, answer = self._prompting.popleft()
            begun.append(request)
            self.generated += 1
            self.prompted += prompt
            if answer > 1:
                heappush(decoding, (self._tokens + answer - 1, request))
            else:
                ended.append(request)
        if self._chunk:
            request, left, prompt, answer = self._prompting[0]
            self._prompting[0] = (request, left - self._chunk, prompt, answer)
        self.finished += len(ended)
        self.load -= len(ended)
        self._begin(now)
        return begun, ended

    def counters(self, now: float) -> tuple[int, int, float]:
        """Tokens generated by now; tokens but the first, and the seconds before them."""
        steps = 0
        if self._each_step > 0 and self.next_at != math.inf:
            steps = max(min(int((now - self._begun) / self._each_step), self._steps), 0)
        many = steps * self._batch
        return self.generated + many, self.tokens + many, self.token_seconds + many * self._each_step

    def requests(self) -> list[int]:
        """All that have not finished."""
        return [r for _, r in self._decoding] + [p[0] for p in self._prompting] + [q[0] for q in self._queue]

    def _begin(self, now: float) -> None:
        law, prompting, queue = self._law, self._prompting, self._queue
        batch = len(self._decoding)
        while queue and batch + len(prompting) < law.most:
            request, prompt, answer = queue.popleft()
            prompting.append((request, prompt, prompt, answer))
        self._complete = self._chunk = 0
        self._begun, self._batch = now, batch
        if prompting:
            room = law.chunk
            for _, left, _, _ in prompting:
                if left > room:
                    self._chunk = room
                    room = 0
                    break
                self._complete += 1
                room -= left
            self._steps = 1
            self._each_step = law.step + law.each * batch + (law.chunk - room) / law.prompt_rate
            self.next_at = now + self._each_step
        elif batch:
            self._steps = self._decoding[0][0] - self._tokens
            self._each_step = law.step + law.each * batch
            self.next_at = now + self._steps * self._each_step
        else:
            self._steps, self.next_at = 0, math.inf
