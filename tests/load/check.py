"""What is wrong with a stream: each token once and in order, the finish reason, the usage, the end."""

import json
from dataclasses import dataclass, field
from typing import Any

# How an answer can fail, worst to tell apart first; `outcome` names the first one that was seen.
CONNECT = "connect"  # no connection, or it broke before any answer
STATUS = "status"  # an answer, and it is an error
TRUNCATED = "truncated"  # it began and did not end
ERROR = "error"  # an error inside the stream
DUPLICATE = "duplicate"
GAP = "gap"
WRONG = "wrong"  # finish reason, usage, [DONE] or the form of an event


@dataclass
class Stream:
    """Checks one streamed chat completion of `expected` tokens.

    With `numbered`, the content of the chunks is the numbers of the tokens, `0 1 2 ...`, as the fake engine writes
    them; without, the engine is a real one, asked for token ids, and they are counted. `now` is in seconds of a
    monotonic clock. Of several faults the first is kept: the later ones follow from it.
    """

    expected: int
    numbered: bool = True
    began: float = 0.0
    tokens: int = 0
    chunks: int = 0
    done: bool = False
    fault: tuple[str, str] | None = None
    first: float | None = None  # seconds from the beginning to the first token
    longest_gap: float = 0.0  # seconds between two tokens
    lags: list[float] = field(default_factory=list)  # seconds that chunks were under way, if the engine says when
    _last: float = 0.0
    _text: bytes = b""
    _finish: str | None = None
    _usage: int | None = None
    # A chunk that was read as JSON, before and after its token's number: another with the same text reads the same.
    _known: tuple[bytes, bytes] | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Take a piece of the body."""
        *events, self._text = (self._text + data).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                self._event(event[6:], now)
            elif event and not event.startswith(b":"):  # a colon: a comment, which keeps the connection alive
                self._wrong(WRONG, f"no event: {event[:80]!r}")

    def end(self, complete: bool) -> None:
        """The answer has ended; `complete` says whether in its form, too."""
        if self._text.strip():
            self._wrong(TRUNCATED, f"ends inside an event: {self._text[:80]!r}")
        if not self.done or not complete:
            self._wrong(TRUNCATED, f"after {self.tokens} of {self.expected} tokens")
        elif self.tokens != self.expected:
            self._wrong(GAP, f"ends after {self.tokens} of {self.expected} tokens with [DONE]")
        elif self._finish != "length":
            self._wrong(WRONG, f"finish_reason is {self._finish!r}, not 'length'")
        elif self._usage != self.expected:
            self._wrong(WRONG, f"usage says {self._usage} tokens of {self.expected}")

    def _event(self, data: bytes, now: float) -> None:
        if self._known is not None and self._is_next(data, *self._known, now):
            return
        if self.done:
            self._wrong(WRONG, f"after [DONE]: {data[:80]!r}")
            return
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event: Any = json.loads(data)
        except ValueError:
            self._wrong(WRONG, f"not JSON: {data[:80]!r}")
            return
        if not isinstance(event, dict) or "error" in event:
            self._wrong(ERROR, data[:200].decode("utf-8", "replace"))
            return
        try:
            self._chunk(event, now)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self._wrong(WRONG, f"not a chunk ({error!r}): {data[:80]!r}")
        if self._known is None and self.numbered and self.tokens:
            self._learn(data)

    def _is_next(self, data: bytes, before: bytes, after: bytes, now: float) -> bool:
        """Whether this is the known chunk with the next number, in which case it is counted."""
        head = b"%s%d%s" % (before, self.tokens, after)
        if self.done or self._finish is not None or not data.startswith(head) or not data.endswith(b"}"):
            return False
        try:
            self.lags.append(now - float(data[len(head) : -1]))
        except ValueError:
            return False
        self.chunks += 1
        self._arrived(now)
        self.tokens += 1
        return True

    def _learn(self, data: bytes) -> None:
        """Keep the text of a chunk that was right, if it is the fake engine's."""
        before, content, rest = data.partition(b'"content":"')
        after, sent, _ = rest.partition(b'"sent":')
        number = b"%d" % (self.tokens - 1)
        if content and sent and after.startswith(number + b' "}') and b'"finish_reason":null' in after:
            self._known = before + content, after[len(number) :] + sent

    def _chunk(self, event: dict[str, Any], now: float) -> None:
        self.chunks += 1
        if "sent" in event:
            self.lags.append(now - event["sent"])
        if usage := event.get("usage"):
            self._usage = usage["completion_tokens"]
        for choice in event["choices"]:
            if self._finish is not None:
                self._wrong(WRONG, "a token after the finish_reason")
            self._finish = choice.get("finish_reason")
            content = choice["delta"].get("content")
            numbers = choice.get("token_ids") or () if not self.numbered else (content or "").split()
            if numbers:
                self._arrived(now)
            for number in numbers:
                self._token(number)

    def _token(self, number: str) -> None:
        if self.numbered:
            index = int(number)
            if index > self.tokens:
                self._wrong(GAP, f"token {index} after {self.tokens} tokens")
            elif index < self.tokens:
                self._wrong(DUPLICATE, f"token {index} after {self.tokens} tokens")
        self.tokens += 1

    def _arrived(self, now: float) -> None:
        if self.first is None:
            self.first = now - self.began
        else:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now

    def _wrong(self, kind: str, detail: str) -> None:
        if self.fault is None:
            self.fault = kind, detail
