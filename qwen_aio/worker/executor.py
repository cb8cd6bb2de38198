"""Call -> engine -> outcome: render the prompt, score or generate, read the result.

The one place that knows both tasks and engine; knows no HTTP. Lives on the event loop and holds no
state of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from qwen_aio.core import Capabilities, ContextLimits, EngineRequest, Prompt, Sampling, Task, TaskKind
from qwen_aio.errors import InvalidRequest, UnknownTask
from qwen_aio.result import Answer, Completion, Decision, EngineEvent, Scores, TextDelta, Timings
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate


class EngineClient(Protocol):
    """What this room needs of an engine; the real one is engine.service.EngineService."""

    @property
    def context(self) -> ContextLimits:
        """What fits."""

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        """Log probabilities of `continuations` after `prompt`."""

    def generate(
        self, request_id: str, prompt: Prompt, sampling: Sampling, *, resume: Sequence[int] = ()
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        """TextDelta*, Completion, after the tokens `resume`. Closing it frees the sequence."""


class LocalExecutor:
    """Makes calls on one engine. Shared by all connections: everything it holds is immutable."""

    def __init__(
        self,
        engine: EngineClient,
        tasks: Mapping[str, Task],
        *,
        model: str,
        worker: str,
        record: Callable[[TaskKind, Timings], None],
    ) -> None:
        """`record` gets the timings of every finished request."""
        self._engine = engine
        self._templates = {name: PromptTemplate(task) for name, task in tasks.items()}
        self._offer = Capabilities(dict(tasks), engine.context, model, worker)
        self._record = record

    def capabilities(self) -> Capabilities:
        return self._offer

    def execute(self, call: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One Decision, or TextDelta*, Answer. Closing it cancels what runs.

        Raises UnknownTask at once; later InvalidRequest, QueueFull, RequestFailed, EngineStopped.
        """
        task = self._task(call.task)
        return self._decide(call, task) if task.kind == "decision" else self._answer(call, task)

    async def _decide(self, call: EngineRequest, task: Task) -> AsyncGenerator[Decision, None]:
        prompt = self._templates[task.name].prompt(call.text)
        scores = await self._engine.score(call.request_id, prompt, [label.text for label in task.labels])
        self._record("decision", scores.timings)
        yield replace(decide(task, scores), worker=self._offer.worker, model=self._offer.model)

    async def _answer(self, call: EngineRequest, task: Task) -> AsyncGenerator[TextDelta | Answer, None]:
        prompt = self._templates[task.name].prompt(call.text, history=call.history, feeling=self._feeling(call))
        parts: list[str] = []
        outputs = self._engine.generate(call.request_id, prompt, self._sampling(call, task), resume=call.resume)
        async with aclosing(outputs):
            async for output in outputs:
                if isinstance(output, TextDelta):
                    parts.append(output.text)
                    yield output
                else:
                    self._record("generation", output.timings)
                    text, offer = "".join(parts), self._offer
                    yield Answer(task.name, text, **vars(output), worker=offer.worker, model=offer.model)

    def _feeling(self, call: EngineRequest) -> str | None:
        """The text of the label that was decided before. Raises UnknownTask, InvalidRequest."""
        if call.decided is None:
            return None
        labels = {label.name: label.text for label in self._task(call.decided.task).labels}
        if call.decided.label not in labels:
            raise InvalidRequest(f"{call.decided.task} has no such label; known: {', '.join(labels)}", param="verdict")
        return labels[call.decided.label]

    def _sampling(self, call: EngineRequest, task: Task) -> Sampling:
        """What the task says, as far as it fits, and what the caller asks for."""
        most = self._engine.context.answer_tokens
        return replace(task.sampling, max_tokens=min(task.sampling.max_tokens, most)).override(call.sampling)

    def _task(self, name: str) -> Task:
        if name not in self._offer.tasks:
            raise UnknownTask(f"unknown task {name!r}; known: {', '.join(sorted(self._offer.tasks))}", param="task")
        return self._offer.tasks[name]
