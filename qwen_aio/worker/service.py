"""Request -> events: route, render, ask the engine, shape the outcome.

The one place that knows both tasks and engine. Knows no HTTP: app.py in front of it does, and in single mode the page
calls it in process. Lives on the event loop; holds no state of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from qwen_aio.core import (
    Answer,
    Chunk,
    ContextLimits,
    Decided,
    Decision,
    Done,
    Event,
    Prompt,
    Request,
    Result,
    Sampling,
    SamplingWish,
    Scores,
    Task,
    Timings,
    Token,
    Usage,
)
from qwen_aio.errors import DeadlineExceeded, InvalidRequest
from qwen_aio.routing import choose_route, fixed_reply
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate

DECISION_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 300.0


class Engine(Protocol):
    """What this room needs of an engine; the real one is engine.service.EngineService."""

    @property
    def context(self) -> ContextLimits:
        """What fits."""

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        """Log probabilities of `continuations` after `prompt`."""

    def generate(self, request_id: str, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """The answer piece by piece; closing the iterator frees its sequence."""


@dataclass(frozen=True)
class Plan:
    """What one request leads to: a decision, an answer, or both."""

    route: str
    main: Task  # named in the reply as `mode`
    decision: Task | None
    answer: Task | None
    fixed: str | None  # what is answered instead of asking the model
    sampling: Sampling


class TaskService:
    """Runs requests on one engine. Shared by all connections: everything it holds is immutable."""

    def __init__(
        self,
        engine: Engine,
        tasks: Mapping[str, Task],
        *,
        model: str,
        worker: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._tasks = dict(tasks)
        self._templates = {name: PromptTemplate(task) for name, task in tasks.items()}
        self._model = model
        self._worker = worker
        self._clock = clock

    @property
    def context(self) -> ContextLimits:
        """What fits."""
        return self._engine.context

    @property
    def worker(self) -> str:
        """Id of this worker."""
        return self._worker

    @property
    def model(self) -> str:
        """Name of the model that answers."""
        return self._model

    async def tasks(self) -> Mapping[str, Task]:
        """Every task by name."""
        return self._tasks

    async def run(self, request: Request) -> Result:
        """The finished outcome of `request`. Raises what `stream` raises."""
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.result
        raise AssertionError("a stream ends with Done or an error")

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided (if a decision is part of it), Token*, Done. Closing it cancels what runs.

        Raises UnknownTask, InvalidRequest, DeadlineExceeded, QueueFull, EngineStopped.
        """
        if not request.text.strip():
            raise InvalidRequest("text is empty; send at least one visible character", param="text")
        plan = self._plan(request)
        started = self._clock()
        limit_s = request.timeout_s or (ANSWER_TIMEOUT_S if plan.answer else DECISION_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + limit_s
        async with aclosing(self._events(request, plan, started)) as events:
            while True:
                try:
                    # Per event and not around the loop: a timeout must not strike while the consumer holds the event.
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as exc:
                    raise DeadlineExceeded(f"not finished within {limit_s:g} s; send less or raise timeout_s") from exc
                yield event

    def _plan(self, request: Request) -> Plan:
        route = choose_route(request.mode, request.text, self._tasks)
        main = self._tasks[route.task]
        companion = self._tasks[main.companion] if request.reply and main.companion else None
        decision, answer = (main, companion) if main.kind == "decision" else (companion, main)
        return Plan(
            route=route.reason,
            main=main,
            decision=decision,
            answer=answer,
            fixed=fixed_reply(request.text, self._tasks) if answer else None,
            sampling=self._sampling(answer or main, request.sampling),
        )

    def _sampling(self, task: Task, wish: SamplingWish) -> Sampling:
        """What the task says, as far as it fits, and what the request asks for. Raises InvalidRequest for too much."""
        most = self._engine.context.answer_tokens
        if wish.max_tokens is not None and wish.max_tokens > most:
            raise InvalidRequest(f"max_tokens must be 1 to {most}, not {wish.max_tokens}", param="max_tokens")
        return replace(task.sampling, max_tokens=min(task.sampling.max_tokens, most)).override(wish)

    async def _events(self, request: Request, plan: Plan, started: float) -> AsyncGenerator[Event, None]:
        decision = await self._decide(request, plan.decision) if plan.decision else None
        if decision is not None:
            yield Decided(decision)
        answer: Answer | None = None
        if plan.answer is not None:
            async with aclosing(self._answer(request, plan, decision)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Token):
                        yield piece
                    else:
                        answer = piece
        yield Done(
            Result(
                request_id=request.request_id,
                mode=plan.main.name,
                route=plan.route,
                task_hash=plan.main.hash,
                model=self._model,
                worker=self._worker,
                decision=decision,
                answer=answer,
                total_ms=(self._clock() - started) * 1000,
            )
        )

    async def _decide(self, request: Request, task: Task) -> Decision:
        # A decision is about this text alone: earlier turns would colour it.
        prompt = self._templates[task.name].prompt(request.text)
        scores = await self._engine.score(request.request_id, prompt, [label.text for label in task.labels])
        return decide(task, scores)

    async def _answer(
        self, request: Request, plan: Plan, decision: Decision | None
    ) -> AsyncGenerator[Token | Answer, None]:
        """Token*, then the finished Answer."""
        task = plan.answer
        assert task is not None
        if plan.fixed is not None:
            yield Token(0, plan.fixed)
            yield Answer(task.name, plan.fixed, "fixed", Usage(), Timings(), worker=self._worker)
            return
        feeling = decision.emotion if decision else None
        prompt = self._templates[task.name].prompt(request.text, history=request.history, feeling=feeling)
        parts: list[str] = []
        async with aclosing(self._engine.generate(request.request_id, prompt, plan.sampling)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    yield Token(len(parts), chunk.text)
                    parts.append(chunk.text)
                if chunk.finish_reason:
                    yield self._finished(task, "".join(parts), chunk)

    def _finished(self, task: Task, text: str, last: Chunk) -> Answer:
        assert last.finish_reason is not None and last.usage is not None and last.timings is not None
        return Answer(
            task.name, text.strip(), last.finish_reason, last.usage, last.timings, cuts=last.cuts, worker=self._worker
        )
