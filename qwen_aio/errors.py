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

    def __init_subclass__(cls, *, code: str) -> None:
        """Each class names its code: clients of other versions know it by that."""
        cls.code = code


class InvalidRequest(QwenAioError, code="invalid_request"):
    """A field of the request is malformed or out of range."""


class ContextTooSmall(InvalidRequest, code="context_too_small"):
    """The fixed part of the prompt and the answer leave no room for any text."""


class ContextExceeded(InvalidRequest, code="context_length_exceeded"):
    """The prompt and the answer do not fit into the context, and nothing may be cut."""


class UnknownTask(QwenAioError, code="unknown_task"):
    """No task has this name."""


class UnknownModel(QwenAioError, code="model_not_found"):
    """No model and no task has this name (OpenAI's routes)."""


class UnknownPath(QwenAioError, code="unknown_path"):
    """No route has this path."""


class MethodNotAllowed(QwenAioError, code="method_not_allowed"):
    """The path is known, but not for this method."""


class HeadersTooSlow(QwenAioError, code="headers_too_slow"):
    """The headers of a request did not arrive in time."""


class BodyTooSlow(QwenAioError, code="body_too_slow"):
    """The body of a request did not arrive in time."""


class BodyTooLarge(QwenAioError, code="body_too_large"):
    """The body has more bytes than the limit."""


class UnsupportedMedia(QwenAioError, code="unsupported_media"):
    """The body is not JSON, or has an encoding that is not supported."""


class HostRefused(QwenAioError, code="host_refused"):
    """The Host header names another server (DNS rebinding)."""


class OriginRefused(QwenAioError, code="origin_refused"):
    """A page of another origin sent the request."""


class KeyRefused(QwenAioError, code="invalid_api_key"):
    """The request has no key, or none that is valid."""


class AccessDenied(QwenAioError, code="access_denied"):
    """The key is valid, but not for this."""


class RateLimited(QwenAioError, code="rate_limit_exceeded"):
    """The client has asked for more than it may in a minute."""


class NotReady(QwenAioError, code="not_ready"):
    """The model is still loading."""


class Draining(QwenAioError, code="draining"):
    """The process is finishing its work and takes no more."""


class CalledOff(Draining, code="called_off"):
    """An operator put the worker into maintenance: nothing is wrong with it."""


class QueueFull(QwenAioError, code="queue_full"):
    """The limit of waiting requests is reached."""


class TooManyConnections(QueueFull, code="too_many_connections"):
    """The limit of open connections is reached."""


class NoWorker(QwenAioError, code="no_worker"):
    """No worker can take the request, and none became ready in time."""


class PoisonRequest(QwenAioError, code="poison_request"):
    """Two workers died while they computed this request; no third one gets it."""


class AnswerBroken(QwenAioError, code="answer_broken"):
    """A worker was lost in the middle of an answer, and no other can continue it."""


class UnknownWorker(QwenAioError, code="unknown_worker"):
    """The balancer knows no worker with this id."""


class LastWorker(QwenAioError, code="last_worker"):
    """Without this worker none would be left to serve; "force" puts it into maintenance all the same."""


class DeadlineExceeded(QwenAioError, code="deadline_exceeded"):
    """The request took longer than its deadline."""


class RequestFailed(QwenAioError, code="request_failed"):
    """Computing this one request failed; the engine continues with all others."""


class EngineStopped(QwenAioError, code="engine_stopped"):
    """The engine thread has ended and computes nothing any more."""


class ServerUnreachable(QwenAioError, code="server_unreachable"):
    """No connection to the address."""


class ConnectionLost(ServerUnreachable, code="connection_lost"):
    """The connection broke."""


class WorkerStalled(ConnectionLost, code="worker_stalled"):
    """The worker sent nothing for so long that it counts as dead."""


class BadReply(ServerUnreachable, code="bad_reply"):
    """A server answers at the address, but not as qwen_aio does."""


class SetupError(QwenAioError, code="setup"):
    """An operator must fix something before the program can start."""


class InvalidTask(SetupError, code="invalid_task"):
    """A folder in prompts/ is not a task."""


class InvalidModel(SetupError, code="invalid_model"):
    """A model folder is missing, damaged, or of a kind that is not supported."""


class HubRefused(SetupError, code="hub_refused"):
    """A model hub does not give what was asked for, or gives what it did not list."""


class InvalidSettings(SetupError, code="invalid_settings"):
    """A flag, variable or line of qwen_aio.toml is wrong."""


class GoldenMismatch(SetupError, code="golden_mismatch"):
    """The model no longer reproduces its recorded answers."""


class DuplicateWorker(SetupError, code="duplicate_worker"):
    """A live worker already has this id."""


class StatusUnreadable(SetupError, code="status_unreadable"):
    """status.json cannot be read; a running reader counts that and tries again."""


class StatusUnwritable(SetupError, code="status_unwritable"):
    """status.json cannot be written; a running worker counts that, goes on and tries again."""


class BundleFailed(SetupError, code="bundle_failed"):
    """Something that a bundle has to hold is missing or damaged, or pip does not get it."""
