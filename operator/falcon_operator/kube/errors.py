"""What the API server's refusals mean to the operator."""

from __future__ import annotations

import json


class ApiError(Exception):
    """The API server answered with an error; `message` is its own sentence."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: the object, its namespace or its kind is not there."""


class Conflict(ApiError):
    """409: another manager owns a field, the name is taken, or a precondition did not hold."""


class Invalid(ApiError):
    """400 or 422: the object itself is refused; the same request will be refused again."""


class Forbidden(ApiError):
    """403: permissions, a quota or an admission policy."""


class Unauthorized(ApiError):
    """401: the credentials are not (or no longer) accepted."""


class TooManyRequests(ApiError):
    """429: the API server asks for patience; `retry_after` is how long."""


class Unavailable(ApiError):
    """The API server failed or could not be reached; whether a write arrived is not known."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: TooManyRequests,
}


def from_response(status: int, body: bytes, retry_after: str | None) -> ApiError:
    """The typed error for an HTTP answer, whose body is usually a `Status` object."""
    reason, message = "Unknown", body[:500].decode(errors="replace").strip()
    try:
        parsed = json.loads(body)
        reason, message = str(parsed.get("reason") or reason), str(parsed.get("message") or message)
    except (ValueError, AttributeError):
        pass  # a proxy's error page: its text is the message
    kind = _BY_STATUS.get(status, Unavailable if status >= 500 else ApiError)
    return kind(status, reason, message, _seconds(retry_after))


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdigit() else None
