"""The fake engine's HTTP: the endpoints of vLLM that this project uses, answered as vLLM does."""

import asyncio
import itertools
import json
import time
from typing import Any

from tests.load.engine.settings import ANSWER, Settings
from tests.load.engine.work import Generation, LawfulWork, Work
from tests.load.wire import Message, WireError

STREAM_HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
PHRASES[503] = "Service Unavailable"
CONTENT = {"/v1/chat/completions": True, "/v1/completions": False}
DEAD = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}
LATE = {"error": {"message": "cannot schedule new futures after shutdown", "type": "InternalServerError", "code": 500}}


class Engine:
    """What all connections share. `draining` and `dead` change what they answer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        law = settings.law
        self.work = LawfulWork(settings.sequences, law) if law else Work(settings.sequences, settings.prefill)
        self.connections: set[Connection] = set()
        self.draining = self.dead = False
        self.asked = 0
        self.numbers = itertools.count()

    def fail(self) -> None:
        """The engine's core has died: streams end with an error inside, and [DONE]; what comes later is refused."""
        self.dead = True
        self.work.stop()
        for connection in list(self.connections):
            connection.fail()

    def close_idle(self) -> None:
        """Close connections that carry nothing."""
        for connection in list(self.connections):
            connection.close_if_idle()

    def metrics(self) -> str:
        """What is asked of /metrics here, and three counters of the fake's own."""
        s, w = self.settings, self.work
        labels = f'engine="0",model_name="{s.names[0]}"'
        tokens = s.sequences * s.max_model_len
        ended = {"length": w.finished, "abort": w.aborted}
        cache = f'block_size="3120",cache_dtype="fp8",num_gpu_blocks="{tokens // 3120}",kv_cache_size_tokens="{tokens}"'
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{labels}}} {w.running}.0",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{{{labels}}} {w.waiting}.0",
            "# TYPE vllm:num_requests_waiting_by_reason gauge",
            f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} {w.waiting}.0',
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{{{labels}}} {w.running / s.sequences:.4f}",
            "# TYPE vllm:cache_config_info gauge",
            f'vllm:cache_config_info{{{labels},{cache},kv_cache_max_concurrency="{float(s.sequences)}"}} 1.0',
            "# TYPE vllm:prompt_tokens_total counter",
            f"vllm:prompt_tokens_total{{{labels}}} {w.prompt_tokens}.0",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{{{labels}}} {w.generated}.0",
            "# TYPE vllm:inter_token_latency_seconds histogram",
            f"vllm:inter_token_latency_seconds_sum{{{labels}}} {w.token_seconds:.6f}",
            "# TYPE vllm:request_success_total counter",
            *(
                f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {ended.get(reason, 0)}.0'
                for reason in ("stop", "length", "abort", "error", "repetition")
            ),
            "# TYPE fake_engine_asked counter",
            f"fake_engine_asked_total {self.asked}",
            "# TYPE fake_engine_finished counter",
            f"fake_engine_finished_total {w.finished}",
            "# TYPE fake_engine_aborted counter",
            f"fake_engine_aborted_total {w.aborted}",
        ]
        return "\n".join([*lines, ""])


class Connection(asyncio.Protocol):
    """One connection, one request after another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._generation: Generation | None = None
        self._before = self._after = ""  # of the content, in the stream's chunks
        self._last = ""
        self._fresh()

    def _fresh(self) -> None:
        self._parts: list[bytes] = []
        self._message = Message(self._parts.append, is_response=False)

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._engine.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        if self._generation is not None:
            self._engine.work.abort(self._generation)

    def data_received(self, data: bytes) -> None:
        try:
            self._message.feed(data)
        except WireError as error:
            self._answer(400, {"error": {"message": str(error)}})
            self._transport.close()
            return
        if self._message.complete and self._generation is None:
            self._handle()

    def close_if_idle(self) -> None:
        """Close it if no request is on it."""
        if self._generation is None and not self._message.headed:
            self._transport.close()

    def fail(self) -> None:
        """End the stream as vLLM does when its core dies."""
        if self._generation is None:
            return
        self._generation = None
        if self._before:
            self._event(f"data: {json.dumps(DEAD)}\n\n")
            self._transport.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            self._answer(500, DEAD)
        self._transport.close()

    # --- requests

    def _handle(self) -> None:
        method, path, *_ = [*self._message.start.split(" "), "", ""]
        path = path.partition("?")[0]
        settings, engine = self._engine.settings, self._engine
        if path in CONTENT and method == "POST":
            self._complete(path)
            return
        if path == "/health":
            self._answer(503 if engine.dead else 200, None)
        elif path == "/version":
            self._answer(200, {"version": settings.version})
        elif path == "/v1/models":
            models = [
                {"id": n, "object": "model", "max_model_len": settings.max_model_len, "root": settings.model}
                for n in settings.names
            ]
            self._answer(200, {"object": "list", "data": models})
        elif path == "/metrics":
            self._answer(200, engine.metrics())
        else:
            self._answer(405 if path in CONTENT else 404, {"detail": "Not Found"})
        self._next()

    def _complete(self, path: str) -> None:
        engine, settings = self._engine, self._engine.settings
        engine.asked += 1
        if engine.dead or engine.draining:
            # one that refuses new connections while it drains has none on which a request could still come
            self._answer(500, DEAD if engine.dead else LATE)
            self._next()
            return
        try:
            asked: dict[str, Any] = json.loads(b"".join(self._parts))
            tokens = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
            pace = float((asked.get("vllm_xargs") or {}).get("pace", settings.pace))
            prompt = _prompt(asked)
            if tokens < 1 or tokens > settings.max_model_len:
                raise ValueError(f"max_tokens must be at least 1 and at most {settings.max_model_len}, got {tokens}")
            if asked["model"] not in settings.names:
                self._answer(404, {"error": {"message": f"The model `{asked['model']}` does not exist.", "code": 404}})
                self._next()
                return
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._answer(400, {"error": {"message": repr(error), "type": "BadRequestError", "code": 400}})
            self._next()
            return
        identity = f"chatcmpl-{settings.identity}-{next(engine.numbers)}"
        if asked.get("stream"):
            self._begin_stream(identity, asked, tokens, prompt)
            self._generation = Generation(tokens, pace, self._stream_token, self._stream_over, prompt)
        else:
            self._begin_whole(identity, asked["model"], tokens, prompt, chat=CONTENT[path])
            self._generation = Generation(tokens, pace, lambda _: None, self._whole_over, prompt)
        engine.work.add(self._generation)

    # --- an answer in a stream

    def _begin_stream(self, identity: str, asked: dict[str, Any], tokens: int, prompt: int) -> None:
        """The head goes out at once, as vLLM's does, whether it is the request's turn or not."""
        self._transport.write(f"{STREAM_HEAD}x-engine: {self._engine.settings.identity}\r\n\r\n".encode())
        common = {
            "id": identity,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": asked["model"],
        }
        self._before = f'data: {json.dumps(common, separators=(",", ":"))[:-1]},"choices":[{{"index":0,"delta":{{'
        usage = _usage(prompt, tokens)
        self._last = ""
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._last = f"data: {json.dumps({**common, 'choices': [], 'usage': usage}, separators=(',', ':'))}\n\n"

    def _stream_token(self, index: int) -> None:
        assert self._generation is not None
        if index == 0:
            self._event(f'{self._before}"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n')
        finish = "null" if index + 1 < self._generation.tokens else '"length"'
        # vLLM does not say when a chunk was sent; the client's clock is the same one
        sent = time.monotonic()
        self._event(f'{self._before}"content":"{index} "}},"finish_reason":{finish}}}],"sent":{sent:.6f}}}\n\n')

    def _stream_over(self) -> None:
        if self._last:
            self._event(self._last)
        self._transport.write(_chunk("data: [DONE]\n\n") + b"0\r\n\r\n")
        self._generation = None
        self._next()

    def _event(self, text: str) -> None:
        self._transport.write(_chunk(text))

    # --- an answer in one piece

    def _begin_whole(self, identity: str, model: str, tokens: int, prompt: int, *, chat: bool) -> None:
        text = " ".join(map(str, range(tokens)))
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        self._before, self._last = (
            "",
            json.dumps(
                {
                    "id": identity,
                    "object": "chat.completion" if chat else "text_completion",
                    "created": int(time.time()),
                    "model": model,
                    "choices": [{"index": 0, **said, "finish_reason": "length"}],
                    "usage": _usage(prompt, tokens),
                }
            ),
        )

    def _whole_over(self) -> None:
        self._generation = None
        self._answer(200, json.loads(self._last))
        self._next()

    def _answer(self, status: int, content: Any) -> None:
        body = b"" if content is None else (content if isinstance(content, str) else json.dumps(content)).encode()
        kind = "text/plain; version=0.0.4" if isinstance(content, str) else "application/json"
        head = f"HTTP/1.1 {status} {PHRASES[status]}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        head += f"x-engine: {self._engine.settings.identity}\r\n"
        self._transport.write(f"{head}\r\n".encode() + body)

    def _next(self) -> None:
        """The answer is complete; the connection stays open for the next request, unless either side is to close it."""
        rest, headers = self._message.rest, self._message.headers
        self._fresh()
        engine = self._engine
        leaves = engine.draining and engine.settings.drain != ANSWER
        if headers.get("connection", "").lower() == "close" or leaves:
            self._transport.close()
        elif rest:
            self.data_received(rest)


def _prompt(asked: dict[str, Any]) -> int:
    """The prompt's tokens: here each word is one."""
    texts = [asked["prompt"]] if "prompt" in asked else [message["content"] for message in asked.get("messages", ())]
    return max(1, sum(len(str(text).split()) for text in texts))


def _usage(prompt: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)
