"""What the failure of an attempt says about the client, the worker and the cost of a retry."""

from __future__ import annotations

from qwen_aio.core import TaskKind
from qwen_aio.errors import (
    BadReply,
    DeadlineExceeded,
    Draining,
    EngineStopped,
    NotReady,
    QueueFull,
    QwenAioError,
    RequestFailed,
    ServerUnreachable,
)
from qwen_aio.result import Answer, Decision, EngineEvent, FinishReason, Timings, Usage
from qwen_aio.wire.error import http_status

SAMPLED: frozenset[FinishReason] = frozenset({"stop", "length"})  # answers that consist of tokens
MAX_MEASURED = 1e12  # tokens or milliseconds: thirty years


def check_sense(event: EngineEvent | None, kind: TaskKind) -> EngineEvent:
    """`event`, if a sound worker gives it to a request of this kind. Raises BadReply."""
    if event is None:
        raise BadReply("a stream without its last event")
    if isinstance(event, Decision) != (kind == "decision"):
        raise BadReply(f"it was asked for a {kind} and gave something else")
    if isinstance(event, Answer) and event.finish_reason in SAMPLED and event.usage.completion_tokens == 0:
        raise BadReply("an answer without a single token")
    if isinstance(event, Decision | Answer) and not _is_measured(event.usage, event.timings):
        raise BadReply("its costs are no numbers that anybody could have measured")
    return event


def is_clients(failure: QwenAioError) -> bool:
    """Is the client to blame, or its time over?"""
    return http_status(failure) < 500 or isinstance(failure, DeadlineExceeded)


def is_blameless(failure: QwenAioError) -> bool:
    """Is the worker not to blame? After RequestFailed it is once another worker succeeds."""
    return is_clients(failure) or isinstance(failure, Draining | NotReady | QueueFull | RequestFailed)


def is_free(failure: QwenAioError) -> bool:
    """Is a retry free, since the work was lost or never begun, not refused?"""
    was_lost = isinstance(failure, ServerUnreachable | EngineStopped | Draining | NotReady)
    return was_lost and not isinstance(failure, BadReply)


def _is_measured(usage: Usage, timings: Timings) -> bool:
    """An infinite number would stay in the averages of all workers for ever."""
    amounts = [*vars(usage).values(), *map(abs, vars(timings).values())]
    return all(0 <= amount <= MAX_MEASURED for amount in amounts)
