"""An engine's pod: from its creation until it is gone, and what its metrics say."""

from __future__ import annotations

import math

from benchmarks.autoscale.engine import Engine, EngineLaw
from benchmarks.autoscale.policy import EngineView


class Pod:
    """Ready at `ready_at`, which is in the future while it starts; `gone_at` is infinite until then."""

    __slots__ = (
        "_known",
        "created",
        "draining",
        "engine",
        "first_tokens",
        "first_waits",
        "gone_at",
        "ready_at",
        "sent",
        "uid",
    )

    def __init__(self, uid: int, law: EngineLaw, created: float, ready_at: float) -> None:
        self.uid, self.created, self.ready_at = uid, created, ready_at
        self.gone_at = math.inf
        self.draining = False
        self.engine = Engine(law)
        self.sent = 0  # of all requests that were sent to any engine, the last that came here
        self.first_tokens, self.first_waits = 0, 0.0  # counters: first tokens, seconds in this engine before them
        # At the last look: tokens but the first, and seconds before them; first tokens, and seconds before them.
        self._known = (0, 0.0, 0, 0.0)

    def view(self, now: float, most: int) -> EngineView:
        """As a rule sees it; KV use is the share of sequences, to which it goes up on this model.

        Means are of what came since the last look, as one who reads histograms takes them. TTFT counts from when the
        request came to the engine, as the engine's own does.
        """
        engine = self.engine
        generated, tokens, seconds = engine.counters(now)
        tokens_then, seconds_then, firsts_then, waits_then = self._known
        self._known = (tokens, seconds, self.first_tokens, self.first_waits)
        some, firsts = tokens - tokens_then, self.first_tokens - firsts_then
        running = engine.running
        return EngineView(
            running=running,
            waiting=engine.waiting,
            kv=min(running / most, 1.0),
            generated=generated,
            prompted=engine.prompted,
            finished=engine.finished,
            ttft=(self.first_waits - waits_then) / firsts if firsts else None,
            itl=(seconds - seconds_then) / some if some else None,
            token_seconds=seconds,
            uid=self.uid,
        )
