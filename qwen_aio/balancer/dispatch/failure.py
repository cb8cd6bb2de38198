"""What the failure of one attempt says: of the caller, of the worker, and of what another attempt costs."""

from __future__ import annotations

from qwen_aio.core import Answer, Decision, EngineEvent, TaskKind, TextDelta, Timings, Usage
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
from qwen_aio.wire.error import http_status

LARGEST = 1e12  # of what is counted or measured in milliseconds: thirty years


def check_sense(event: EngineEvent, kind: TaskKind) -> None:
    """Raises BadReply for what no sound worker gives to a call of this kind."""
    if isinstance(event, Decision) != (kind == "decision"):
        raise BadReply(f"it was asked for a {kind} and gave something else")
    if isinstance(event, Answer) and event.usage.completion_tokens == 0:
        raise BadReply("an answer without a single token")
    if not isinstance(event, TextDelta) and not _is_measured(event.usage, event.timings):
        raise BadReply("its costs are no numbers that anybody could have measured")


def is_callers(failure: QwenAioError) -> bool:
    """The caller is to blame, or has no time left."""
    return http_status(failure) < 500 or isinstance(failure, DeadlineExceeded)


def is_blameless(failure: QwenAioError) -> bool:
    """Says nothing against the worker; after RequestFailed not until another one has done the same."""
    return is_callers(failure) or isinstance(failure, Draining | NotReady | QueueFull | RequestFailed)


def is_free(failure: QwenAioError) -> bool:
    """Needs no budget: the work was lost, not refused, or was never begun."""
    was_lost = isinstance(failure, ServerUnreachable | EngineStopped | Draining | NotReady)
    return was_lost and not isinstance(failure, BadReply)


def _is_measured(usage: Usage, timings: Timings) -> bool:
    """One number without end would stay for ever in the averages of all workers."""
    return all(0 <= count <= LARGEST for count in vars(usage).values()) and all(
        abs(spent_ms) <= LARGEST for spent_ms in vars(timings).values()
    )
