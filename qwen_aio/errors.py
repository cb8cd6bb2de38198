"""One tree of errors. Only wire/ knows the HTTP status of a code."""

from __future__ import annotations


class QwenAioError(Exception):
    """Base of all. `message` is for people, `code` for programs, `param` is the field at fault."""

    code = "internal"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s  # whole seconds, for errors that pass


class InvalidRequest(QwenAioError):
    """A field of the request is malformed or out of range."""

    code = "invalid_request"


class ContextTooSmall(InvalidRequest):
    """The fixed part of the prompt and the answer leave no room for any text."""

    code = "context_too_small"


class UnknownTask(QwenAioError):
    """No task has this name."""

    code = "unknown_task"


class UnknownPath(QwenAioError):
    """No route has this path."""

    code = "unknown_path"


class MethodNotAllowed(QwenAioError):
    """The path is known, but not for this method."""

    code = "method_not_allowed"


class HeadersTooSlow(QwenAioError):
    """The headers of a request did not arrive in time."""

    code = "headers_too_slow"


class BodyTooSlow(QwenAioError):
    """The body of a request did not arrive in time."""

    code = "body_too_slow"


class BodyTooLarge(QwenAioError):
    """The body has more bytes than the limit."""

    code = "body_too_large"


class UnsupportedMedia(QwenAioError):
    """The body is not JSON, or has an encoding that is not supported."""

    code = "unsupported_media"


class HostRefused(QwenAioError):
    """The Host header names another server (DNS rebinding)."""

    code = "host_refused"


class OriginRefused(QwenAioError):
    """A page of another origin sent the request."""

    code = "origin_refused"


class NotReady(QwenAioError):
    """The model is still loading."""

    code = "not_ready"


class Draining(QwenAioError):
    """The process is finishing its work and takes no more."""

    code = "draining"


class CalledOff(Draining):
    """An operator took the worker offline: nothing is wrong with it."""

    code = "called_off"


class QueueFull(QwenAioError):
    """The limit of waiting requests is reached."""

    code = "queue_full"


class TooManyConnections(QueueFull):
    """The limit of open connections is reached."""

    code = "too_many_connections"


class NoWorker(QwenAioError):
    """No worker can take the request, and none became ready in time."""

    code = "no_worker"


class PoisonRequest(QwenAioError):
    """Two workers died while they computed this request; no third one gets it."""

    code = "poison_request"


class AnswerBroken(QwenAioError):
    """A worker was lost in the middle of an answer, and no other can continue it."""

    code = "answer_broken"


class UnknownWorker(QwenAioError):
    """The balancer knows no worker with this id."""

    code = "unknown_worker"


class LastWorker(QwenAioError):
    """Without this worker none would be left to serve; "force" takes it offline all the same."""

    code = "last_worker"


class DeadlineExceeded(QwenAioError):
    """The request took longer than its deadline."""

    code = "deadline_exceeded"


class RequestFailed(QwenAioError):
    """Computing this one request failed; the engine continues with all others."""

    code = "request_failed"


class EngineStopped(QwenAioError):
    """The engine thread has ended and computes nothing any more."""

    code = "engine_stopped"


class ServerUnreachable(QwenAioError):
    """No connection to the address."""

    code = "server_unreachable"


class ConnectionLost(ServerUnreachable):
    """The connection broke."""

    code = "connection_lost"


class WorkerStalled(ConnectionLost):
    """The worker sent nothing for so long that it counts as dead."""

    code = "worker_stalled"


class BadReply(ServerUnreachable):
    """A server answers at the address, but not as qwen_aio does."""

    code = "bad_reply"


class SetupError(QwenAioError):
    """An operator must fix something before the program can start."""

    code = "setup"


class InvalidTask(SetupError):
    """A folder in prompts/ is not a task."""

    code = "invalid_task"


class InvalidModel(SetupError):
    """A model folder is missing, damaged, or of a kind that is not supported."""

    code = "invalid_model"


class InvalidSettings(SetupError):
    """A flag, variable or line of qwen_aio.toml is wrong."""

    code = "invalid_settings"


class GoldenMismatch(SetupError):
    """The model no longer reproduces its recorded answers."""

    code = "golden_mismatch"


class DuplicateWorker(SetupError):
    """A live worker already has this id."""

    code = "duplicate_worker"


class StatusUnreadable(SetupError):
    """status.json cannot be read; a running reader counts that and tries again."""

    code = "status_unreadable"


class StatusUnwritable(SetupError):
    """status.json cannot be written; a running worker counts that, goes on and tries again."""

    code = "status_unwritable"
