"""The gateway's own answers: errors in the form that OpenAI's clients read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

RETRY_SECONDS = 5


@dataclass(frozen=True)
class Answer:
    """One error: its status, OpenAI's `type` and `code`, and a sentence without an apostrophe (HAProxy's quotes)."""

    status: int
    type: str
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def config(self) -> str:
        """The arguments of `http-request return`, and of `http-error` alike."""
        extra = "".join(f" hdr {name} '{value}'" for name, value in self.headers)
        return f"status {self.status} content-type application/json string '{self._body()}'{extra}"

    def file(self) -> str:
        """The whole answer as HAProxy sends it off, for `errorfile`."""
        body = self._body()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", body])

    def _body(self) -> str:
        return json.dumps(
            {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}},
            separators=(",", ":"),
        )


_RETRY = (("Retry-After", str(RETRY_SECONDS)),)
_CLIENT = "invalid_request_error"
_SERVER = "server_error"

UNKNOWN_PATH = Answer(404, _CLIENT, "unknown_url", "This path is not open here.")
WRONG_KEY = Answer(
    401,
    _CLIENT,
    "invalid_api_key",
    "The API key is missing or wrong. Send it as: Authorization: Bearer KEY",
    (("WWW-Authenticate", "Bearer"),),
)
CHUNKED_BODY = Answer(
    413, _CLIENT, "request_too_large", "The body is too large to be sent in chunks. Send its Content-Length."
)
LARGE_HEADER = Answer(400, _CLIENT, "bad_request", "The header of the request is too large.")
STRANGE_HEADER = Answer(400, _CLIENT, "bad_request", "The header of the request has control characters in it.")
NO_ENGINE = Answer(503, _SERVER, "no_engine_ready", "No engine is ready. Try again later.", _RETRY)
ALL_FULL = Answer(
    429, "rate_limit_error", "engines_busy", "All engines are busy and too many requests wait. Try again later.", _RETRY
)

# What HAProxy itself says, from there on where a request could be read.
OWN = (
    Answer(400, _CLIENT, "bad_request", "The request could not be read as HTTP."),
    Answer(403, "permission_error", "forbidden", "The request is forbidden."),
    Answer(408, _CLIENT, "request_timeout", "The request did not arrive in time."),
    Answer(429, "rate_limit_error", "engines_busy", "All engines are busy. Try again later.", _RETRY),
    Answer(500, _SERVER, "gateway_error", "The gateway failed."),
    Answer(502, _SERVER, "engine_failed", "The engine ended the connection before it answered.", _RETRY),
    Answer(503, _SERVER, "no_engine_ready", "No engine took the request. Try again later.", _RETRY),
    Answer(504, _SERVER, "engine_timeout", "The engine did not answer in time.", _RETRY),
)


# Where there is no request that could be read HAProxy knows files only, from 3.2 on; before, nothing but its own words.
FILES = {f"{answer.status}.http": answer.file() for answer in OWN if answer.status in (400, 408)}


def wrong_method(allowed: str) -> Answer:
    """The path is right and the method is not."""
    return Answer(
        405, _CLIENT, "method_not_allowed", f"This path takes {allowed} only.", (("Allow", allowed.replace(" ", "")),)
    )


def large_body(limit: int) -> Answer:
    """The body is longer than `limit` bytes."""
    return Answer(413, _CLIENT, "request_too_large", f"The body is larger than {limit} bytes, which is the limit here.")
