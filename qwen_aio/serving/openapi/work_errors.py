"""The errors of routes that give work to an engine, for the document."""

from __future__ import annotations

from qwen_aio.errors import (
    AnswerBroken,
    BadReply,
    CalledOff,
    ConnectionLost,
    ContextExceeded,
    ContextTooSmall,
    DeadlineExceeded,
    Draining,
    EngineStopped,
    NotReady,
    NoWorker,
    PoisonRequest,
    QueueFull,
    RequestFailed,
    ServerUnreachable,
    WorkerStalled,
)
from qwen_aio.serving.openapi.endpoint import ErrorKinds

CLOSED: ErrorKinds = (NotReady, Draining, EngineStopped)  # of the admission gate
WORK_ERRORS: ErrorKinds = (
    *CLOSED,
    *(ContextTooSmall, ContextExceeded, QueueFull, DeadlineExceeded, RequestFailed),
)
# Besides, of a balancer whose workers fail.
LOST_WORK: ErrorKinds = (
    *(NoWorker, CalledOff, AnswerBroken, PoisonRequest),
    *(ServerUnreachable, ConnectionLost, WorkerStalled, BadReply),
)
