"""One tree of errors. wire/ alone knows which HTTP status a code has.

QwenAioError
├── InvalidRequest          invalid_request      a field is malformed or out of range
│   └── ContextTooSmall     context_too_small    max_tokens and the fixed prompt leave no room for a text
├── UnknownTask             unknown_task         no such task
├── UnknownPath             unknown_path         no such route
├── MethodNotAllowed        method_not_allowed   the route is there, but not for this method
├── HeadersTooSlow          headers_too_slow     the headers did not arrive in time
├── BodyTooSlow             body_too_slow        the body did not arrive in time
├── BodyTooLarge            body_too_large       more bytes than the limit
├── UnsupportedMedia        unsupported_media    not JSON
├── HostRefused             host_refused         Host header is not one of ours
├── OriginRefused           origin_refused       a foreign page called
├── NotReady                not_ready            still loading
├── Draining                draining             shutting down
│   └── CalledOff           called_off           balancer: a person took the worker offline
├── QueueFull               queue_full           too many wait
│   └── TooManyConnections  too_many_connections as many connections are open as may be
├── NoWorker                no_worker            balancer: no worker can take the request
├── PoisonRequest           poison_request       balancer: two workers died of it
├── AnswerBroken            answer_broken        balancer: the rest of an answer cannot be had
├── UnknownWorker           unknown_worker       balancer: no worker of this id
├── LastWorker              last_worker          balancer: nobody would be left to serve
├── DeadlineExceeded        deadline_exceeded    took longer than allowed
├── RequestFailed           request_failed       computing this one request failed; the engine goes on
├── EngineStopped           engine_stopped       the engine thread is gone
├── ServerUnreachable       server_unreachable   client side: nobody answers at the address
│   ├── ConnectionLost      connection_lost      client side: the connection broke
│   │   └── WorkerStalled   worker_stalled       balancer: nothing came for so long that a worker is taken for dead
│   └── BadReply            bad_reply            client side: what came is not what a server of ours sends
└── SetupError              setup                what an operator must mend before anything starts
    ├── InvalidTask         invalid_task
    ├── InvalidModel        invalid_model
    ├── InvalidSettings     invalid_settings
    ├── GoldenMismatch      golden_mismatch      the model no longer answers what it answered
    ├── DuplicateWorker     duplicate_worker     this id is alive elsewhere
    ├── StatusUnreadable    status_unreadable    status.json is damaged or not a file
    └── StatusUnwritable    status_unwritable    status.json is locked, unsafe to write, or the disk is full
"""

from __future__ import annotations


class QwenAioError(Exception):
    """Base of all; `message` is a sentence for a person, `code` a word for a program, `param` the field at fault."""

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
    """Nothing lives at this path."""

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
    """The body is not JSON, or is encoded in a way we do not read."""

    code = "unsupported_media"


class HostRefused(QwenAioError):
    """The Host header names somebody else (DNS rebinding)."""

    code = "host_refused"


class OriginRefused(QwenAioError):
    """A page from another origin called."""

    code = "origin_refused"


class NotReady(QwenAioError):
    """The model is still loading."""

    code = "not_ready"


class Draining(QwenAioError):
    """The process is finishing its work and takes no more."""

    code = "draining"


class CalledOff(Draining):
    """A person took the worker offline: nothing is wrong with it."""

    code = "called_off"


class QueueFull(QwenAioError):
    """As many requests wait as may wait."""

    code = "queue_full"


class TooManyConnections(QueueFull):
    """As many connections are open as may be."""

    code = "too_many_connections"


class NoWorker(QwenAioError):
    """No worker is there that could take the request, or none came in time."""

    code = "no_worker"


class PoisonRequest(QwenAioError):
    """The request was present at the death of two workers; no third one gets it."""

    code = "poison_request"


class AnswerBroken(QwenAioError):
    """A worker was lost in the middle of an answer, and no other can go on with it."""

    code = "answer_broken"


class UnknownWorker(QwenAioError):
    """The balancer knows no worker of this id."""

    code = "unknown_worker"


class LastWorker(QwenAioError):
    """Without this worker nobody would be left to serve; "force" says that this is meant."""

    code = "last_worker"


class DeadlineExceeded(QwenAioError):
    """The request took longer than its deadline."""

    code = "deadline_exceeded"


class RequestFailed(QwenAioError):
    """Something went wrong while this one request was computed; the engine goes on with all others."""

    code = "request_failed"


class EngineStopped(QwenAioError):
    """The engine thread has ended; nothing can be computed any more."""

    code = "engine_stopped"


class ServerUnreachable(QwenAioError):
    """Nobody answers at the address."""

    code = "server_unreachable"


class ConnectionLost(ServerUnreachable):
    """The connection was there and broke."""

    code = "connection_lost"


class WorkerStalled(ConnectionLost):
    """Nothing came for so long that the worker is taken for dead."""

    code = "worker_stalled"


class BadReply(ServerUnreachable):
    """Somebody answers at the address, but not as a server of ours does."""

    code = "bad_reply"


class SetupError(QwenAioError):
    """Something an operator must mend before the program can start."""

    code = "setup"


class InvalidTask(SetupError):
    """A folder in prompts/ is not a task."""

    code = "invalid_task"


class InvalidModel(SetupError):
    """A model folder is missing, damaged, or of a kind we do not load."""

    code = "invalid_model"


class InvalidSettings(SetupError):
    """A flag, variable or line of qwen_aio.toml is wrong."""

    code = "invalid_settings"


class GoldenMismatch(SetupError):
    """The model no longer answers what it answered before."""

    code = "golden_mismatch"


class DuplicateWorker(SetupError):
    """A live worker already has this id."""

    code = "duplicate_worker"


class StatusUnreadable(SetupError):
    """Nothing can be learnt from status.json; a running reader counts it and tries again."""

    code = "status_unreadable"


class StatusUnwritable(SetupError):
    """A record could not be put into status.json; a running worker counts it, goes on and tries again."""

    code = "status_unwritable"
