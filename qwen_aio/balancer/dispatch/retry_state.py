"""One request on its way: what was sent to the client, which workers were tried, what may be tried.

nothing sent yet         another worker, at most two more
text sent already        another worker of the same model and task resumes the answer
the client's mistake     goes to the client; never retried
two workers died         the request is poison; no third one gets it
computing it failed      one more worker; if it succeeds, the first is to blame, else the request
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.failure import is_free
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import Params
from qwen_aio.core import EngineRequest, Task, TaskKind
from qwen_aio.errors import (
    AnswerBroken,
    Draining,
    NotReady,
    NoWorker,
    PoisonRequest,
    QwenAioError,
    RequestFailed,
    ServerUnreachable,
)
from qwen_aio.result import Answer, AnswerStart, Decision, EngineEvent, TextDelta

MIN_LEFT_S = 0.001  # a worker must be given some time


@dataclass(eq=False)
class RetryState:
    """Owned by the one coroutine that executes the request."""

    queued: QueuedRequest
    task: Task
    params: Params
    deadline: float  # of the clock; that of `queued` may be earlier
    slot: Slot | None = None  # of the last attempt
    attempts: int = 0
    attempt_began: float = 0.0  # of the clock
    queued_s: float = 0.0  # in the queue, all attempts together ...
    queued_since: float | None = None  # ... and since when it is there now
    num_failures: int = 0  # attempts that count: a worker that shuts down does not
    num_deaths: int = 0  # workers that died under it
    suspect: Slot | None = None  # where it failed, while either worker or request may be to blame
    parts: list[str] = field(default_factory=list)  # text that was sent to the client
    token_ids: list[int] = field(default_factory=list)
    begun: AnswerStart | None = None  # of the answer whose tokens were sent
    last: Decision | Answer | None = None  # the end of the stream

    @property
    def is_resumed(self) -> bool:
        """Has a worker that was lost begun the answer?"""
        return self.queued.needs is not None

    def unqueue(self, *, now: float) -> None:
        """It waits no longer, with a slot or without."""
        if self.queued_since is not None:
            self.queued_s += now - self.queued_since
            self.queued_since = None

    def start(self, slot: Slot, *, now: float) -> EngineRequest:
        """Start an attempt in `slot`.

        Returns its request: to resume the answer, in the time left.
        """
        self.unqueue(now=now)
        self.attempts += 1
        self.attempt_began = now
        self.slot = slot
        request = replace(self.queued.request, timeout_s=max(self.deadline - now, MIN_LEFT_S))
        if not self.token_ids:
            return request
        seed = self.begun.seed if self.begun else request.sampling.seed
        return replace(request, resume=tuple(self.token_ids), sampling=replace(request.sampling, seed=seed))

    def send(self, event: EngineEvent, *, now: float) -> EngineEvent:
        """`event` as the client gets it; the last one has the text and the time of all attempts."""
        if isinstance(event, AnswerStart):
            self.begun = self.begun if self.token_ids else event
            return event
        if isinstance(event, TextDelta):
            self.parts.append(event.text)
            self.token_ids.extend(event.token_ids)
            return event
        queue_ms = event.timings.queue_ms + self.queued_s * 1000
        timings = replace(event.timings, queue_ms=queue_ms, total_ms=(now - self.queued.arrived) * 1000)
        self.last = replace(event, timings=timings)
        if isinstance(self.last, Answer) and self.token_ids:  # the last worker knows only the end of it
            safety = self.begun.safety if self.begun else self.last.safety
            self.last = replace(self.last, text="".join(self.parts), safety=safety)
        return self.last

    def clear(self, slot: Slot) -> None:
        """The attempt in `slot` succeeded: a worker that failed at the same request is to blame."""
        if self.suspect is not None and self.suspect.id != slot.id:
            self.suspect.blame(f"it failed at what {slot.id} could do")

    def fail(self, slot: Slot, failure: QwenAioError, *, has_died: bool) -> None:
        """Count a failed attempt. Raises PoisonRequest."""
        self.num_deaths += has_died
        if self.num_deaths >= self.params.max_deaths:
            raise PoisonRequest("two workers died while this request was on them; no third one gets it") from failure
        self.num_failures += not isinstance(failure, Draining | NotReady)
        self.queued.tried.add(slot.id)
        self.queued.is_returned = True
        self.queued.deadline = self.deadline
        if self.token_ids:
            self.queued.needs = slot.compatibility

    def check_retry(self, slot: Slot, failure: QwenAioError, budget: RetryBudget, *, has_another: bool) -> None:
        """Raises what the client is to get, if there is no further attempt after `failure`."""
        is_last = self.num_failures > self.params.max_other_workers
        if isinstance(failure, RequestFailed):
            is_last = is_last or self.suspect is not None or not has_another
            self.suspect = slot
        if is_last or not (is_free(failure) or budget.spend()):
            raise self._final_error(failure)

    def start_over(self, *, now: float) -> None:
        """All workers were tried: from now on any of them may try again."""
        self.queued.tried.clear()
        if self.token_ids:  # a client that waits in the middle of a sentence does not wait for ever
            self.queued.deadline = min(self.deadline, now + self.params.no_worker_grace_s)

    def _final_error(self, failure: QwenAioError) -> QwenAioError:
        if isinstance(failure, RequestFailed):
            return failure
        if self.token_ids:
            return answer_broken()
        if isinstance(failure, ServerUnreachable):
            return NoWorker(f"{self.attempts} workers in a row could not be reached", retry_after_s=2)
        return failure


def answer_broken() -> AnswerBroken:
    """The error for a client that has got a part of its answer."""
    return AnswerBroken("a worker was lost in the middle of this answer, and no other could go on", retry_after_s=1)


def seeded(request: EngineRequest, kind: TaskKind) -> EngineRequest:
    """`request` with a seed, so that another worker can resume the answer that one began."""
    if kind == "decision" or request.sampling.seed is not None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))
