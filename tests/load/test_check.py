"""The checker notices what it is there for: streams that are broken in each way, whichever way their bytes come."""

import json
import random

import pytest
from tests.load.check import DUPLICATE, ERROR, GAP, TRUNCATED, WRONG, Stream
from tests.load.wire import Message, WireError

TOKENS = 12


def chunk(content: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    text = json.dumps({"id": "a", "choices": [choice], "sent": 1.5}, separators=(",", ":"))
    return f"data: {text}\n\n"


def events(tokens: int = TOKENS) -> list[str]:
    """The events of a stream as it should be."""
    numbers = [chunk(f"{n} ", "length" if n == tokens - 1 else None) for n in range(tokens)]
    usage = {"choices": [], "usage": {"completion_tokens": tokens}}
    return [chunk(""), *numbers, f"data: {json.dumps(usage)}\n\n", "data: [DONE]\n\n"]


def judged(parts: list[str], *, complete: bool = True) -> Stream:
    """The stream, its bytes cut at random places."""
    stream, data, cut = Stream(TOKENS), "".join(parts).encode(), random.Random(len(parts))
    while data:
        size = cut.randint(1, 90)
        stream.feed(data[:size], now=2.0)
        data = data[size:]
    stream.end(complete)
    return stream


def without(index: int) -> list[str]:
    return [event for number, event in enumerate(events()) if number != index]


def test_a_stream_as_it_should_be_is_right() -> None:
    stream = judged(events())
    assert stream.fault is None
    assert (stream.tokens, stream.done) == (TOKENS, True)
    assert stream.lags == [0.5] * (TOKENS + 1)


def test_a_comment_between_two_tokens_is_no_fault() -> None:
    parts = events()
    assert judged([*parts[:4], ": keep-alive\n\n", *parts[4:]]).fault is None


@pytest.mark.parametrize("index", range(1, TOKENS))
def test_a_missing_token_is_a_gap(index: int) -> None:
    fault = judged(without(index)).fault
    assert fault is not None
    assert fault[0] == GAP


def test_a_missing_last_token_is_a_fault() -> None:
    assert judged(without(TOKENS)).fault == (GAP, "ends after 11 of 12 tokens with [DONE]")


@pytest.mark.parametrize("index", range(1, TOKENS))
def test_a_doubled_token_is_a_duplicate(index: int) -> None:
    parts = events()
    fault = judged([*parts[: index + 1], *parts[index:]]).fault
    assert fault is not None
    assert fault[0] == DUPLICATE


@pytest.mark.parametrize("index", range(1, TOKENS - 1))
def test_two_tokens_in_the_wrong_order_are_a_gap(index: int) -> None:
    parts = events()
    parts[index], parts[index + 1] = parts[index + 1], parts[index]
    fault = judged(parts).fault
    assert fault is not None
    assert fault[0] == GAP


@pytest.mark.parametrize("kept", range(TOKENS + 3))
def test_a_stream_that_is_cut_is_truncated(kept: int) -> None:
    fault = judged(events()[:kept], complete=False).fault
    assert fault is not None
    assert fault[0] == TRUNCATED


def test_a_stream_that_is_cut_inside_an_event_is_truncated() -> None:
    fault = judged([*events()[:5], events()[5][:30]], complete=False).fault
    assert fault is not None
    assert fault[0] == TRUNCATED


def test_done_without_the_end_of_the_body_is_truncated() -> None:
    fault = judged(events(), complete=False).fault
    assert fault is not None
    assert fault[0] == TRUNCATED


def test_the_end_of_the_body_without_done_is_truncated() -> None:
    fault = judged(events()[:-1]).fault
    assert fault is not None
    assert fault[0] == TRUNCATED


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        pytest.param([*events(), "data: [DONE]\n\n"], WRONG, id="done twice"),
        pytest.param([*events(), chunk("12 ")], WRONG, id="a token after done"),
        pytest.param([*events()[:-1], "data: [done]\n\n"], WRONG, id="done in small letters"),
        pytest.param([*events()[:-1], "[DONE]\n\n"], WRONG, id="done without data"),
        pytest.param(events()[:-2] + events()[-1:], WRONG, id="no usage"),
        pytest.param([*events()[:-2], events(11)[-2], "data: [DONE]\n\n"], WRONG, id="usage of another length"),
        pytest.param([*events()[:TOKENS], chunk("11 "), *events()[-2:]], WRONG, id="no finish reason"),
        pytest.param([*events()[:TOKENS], chunk("11 ", "stop"), *events()[-2:]], WRONG, id="another finish reason"),
        pytest.param([*events()[:5], 'data: {"error": {"code": 500}}\n\n', "data: [DONE]\n\n"], ERROR, id="an error"),
        pytest.param([*events()[:5], "data: {\n\n", *events()[5:]], WRONG, id="half an event"),
        pytest.param([*events()[:5], "data: {}\n\n", *events()[5:]], WRONG, id="an event without choices"),
        pytest.param([*events()[:5], chunk("x "), *events()[6:]], WRONG, id="content that is no number"),
    ],
)
def test_what_is_wrong_with_a_stream_is_named(parts: list[str], kind: str) -> None:
    fault = judged(parts).fault
    assert fault is not None
    assert fault[0] == kind


def test_the_tokens_of_a_real_engine_are_counted_by_their_ids() -> None:
    def real(ids: list[int], finish: str | None = None) -> bytes:
        choice = {"delta": {"content": "so"}, "token_ids": ids, "finish_reason": finish}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    end = b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'
    whole, short = Stream(3, numbered=False), Stream(3, numbered=False)
    whole.feed(real([7]) + real([9, 4], "length") + end, 1.0)
    short.feed(real([7]) + real([9], "length") + end, 1.0)
    for stream in (whole, short):
        stream.end(complete=True)
    assert whole.fault is None
    assert short.fault == (GAP, "ends after 2 of 3 tokens with [DONE]")


def test_times_are_from_the_request_and_between_tokens() -> None:
    stream = Stream(3, began=10.0)
    for now, event in zip((10.5, 11.0, 11.25, 13.0), events(3), strict=False):
        stream.feed(event.encode(), now)
    assert (stream.first, stream.longest_gap) == (1.0, 1.75)


# --- the wire below


def message(data: bytes, size: int, *, is_response: bool = True) -> tuple[Message, bytes]:
    pieces: list[bytes] = []
    found = Message(pieces.append, is_response=is_response)
    for at in range(0, len(data), size):
        found.feed(data[at : at + size])
    return found, b"".join(pieces)


@pytest.mark.parametrize("size", range(1, 30))
def test_a_body_in_chunks_reads_the_same_however_it_is_cut(size: int) -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n1\r\n!\r\n0\r\n\r\nrest"
    found, body = message(data, size)
    assert (found.complete, found.status, body) == (True, 200, b"hello!")
    assert found.rest == data[-len(found.rest) :]


@pytest.mark.parametrize("kept", range(1, 66))
def test_a_body_in_chunks_that_is_cut_is_not_complete(kept: int) -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    assert kept < len(data)
    found, _ = message(data[:kept], 7)
    found.end()
    assert not found.complete


@pytest.mark.parametrize("size", range(1, 30))
def test_a_body_with_a_length_ends_there(size: int) -> None:
    found, body = message(b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", size, is_response=False)
    assert (found.complete, found.start, body) == (True, "POST /x HTTP/1.1", b"abc")


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    found, body = message(b"HTTP/1.1 500 No\r\n\r\noops", 3)
    assert not found.complete
    found.end()
    assert (found.complete, body) == (True, b"oops")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"SSH-2.0\r\n\r\n",
        b"x" * 70000,
    ],
)
def test_what_is_not_http_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(WireError):
        message(data, len(data))
