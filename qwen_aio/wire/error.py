"""Errors on the wire: body, status and headers of a refusal, and the error read from them."""

from __future__ import annotations

from collections.abc import Iterable

from qwen_aio.errors import QwenAioError
from qwen_aio.wire.shape import Answered


class ErrorDetail(Answered):
    """A sentence, a class of errors, the field at fault, and a code for programs."""

    message: str
    """One sentence for people."""
    type: str
    """The class of the error, as at OpenAI."""
    param: str | None = None
    """The field at fault."""
    code: str
    """For programs."""
    request_id: str = ""
    """That of the header X-Request-ID."""


class ErrorResponse(Answered):
    """Every reply with a status of 400 or more, and the `error` event of a stream."""

    error: ErrorDetail
    """What went wrong."""

    @classmethod
    def from_core(cls, error: QwenAioError, request_id: str) -> ErrorResponse:
        kind = _error_type(http_status(error))
        detail = ErrorDetail(
            message=error.message, type=kind, param=error.param, code=error.code, request_id=request_id
        )
        return cls(error=detail)

    def to_core(self, *, retry_after_s: int | None = None) -> QwenAioError:
        """The error that the server raised; the base class for an unknown code."""
        kind = _ERRORS.get(self.error.code, QwenAioError)
        return kind(self.error.message, param=self.error.param, retry_after_s=retry_after_s)


CHALLENGE = {"WWW-Authenticate": 'Bearer realm="qwen_aio"'}  # of every 401
_STATUS = {
    "invalid_request": 400,
    "context_too_small": 400,
    "context_length_exceeded": 400,
    "host_refused": 400,
    "invalid_api_key": 401,
    "origin_refused": 403,
    "access_denied": 403,
    "unknown_task": 404,
    "model_not_found": 404,
    "unknown_path": 404,
    "unknown_worker": 404,
    "method_not_allowed": 405,
    "headers_too_slow": 408,
    "body_too_slow": 408,
    "last_worker": 409,
    "body_too_large": 413,
    "unsupported_media": 415,
    "rate_limit_exceeded": 429,
    "not_ready": 503,
    "draining": 503,
    "called_off": 503,
    "queue_full": 503,
    "too_many_connections": 503,
    "no_worker": 503,
    "answer_broken": 503,
    "engine_stopped": 503,
    "server_unreachable": 503,
    "connection_lost": 503,
    "worker_stalled": 503,
    "bad_reply": 503,
    "deadline_exceeded": 504,
}


def http_status(error: QwenAioError) -> int:
    """500 for an error that neither the client causes nor a retry cures."""
    return _STATUS.get(error.code, 500)


def error_headers(error: QwenAioError) -> dict[str, str]:
    """Retry-After, for errors that pass; how to prove who one is, for a missing key."""
    match http_status(error):
        case 401:
            return CHALLENGE
        case 429 | 503:
            return {"Retry-After": str(max(1, error.retry_after_s or 1))}
    return {}


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status < 500:
        return "invalid_request_error"
    return {503: "overloaded_error", 504: "timeout_error"}.get(status, "server_error")


def _family(kind: type[QwenAioError]) -> Iterable[type[QwenAioError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


_ERRORS = {kind.code: kind for kind in _family(QwenAioError)}
