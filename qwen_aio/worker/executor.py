"""Call -> engine -> outcome: render the prompt, score or generate, read the result.

The one place that knows both tasks and engine. Knows no HTTP: the routes in front of it do, and in single mode the page
calls it in process. Lives on the event loop; holds no state of its own.
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
        """TextDelta*, Completion; only what follows the tokens `resume`. Closing it frees the sequence."""


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
        """What can be asked for."""
        return self._offer

    async def execute(self, call: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One Decision, or TextDelta*, Answer. Closing it cancels what runs.

        Raises UnknownTask, InvalidRequest, QueueFull, RequestFailed, EngineStopped.
        """
        task = self._task(call.task)
        if task.kind == "decision":
            yield await self._decide(call, task)
            return
        async with aclosing(self._answer(call, task)) as pieces:
            async for piece in pieces:
                yield piece

    async def _decide(self, call: EngineRequest, task: Task) -> Decision:
        prompt = self._templates[task.name].prompt(call.text)
        scores = await self._engine.score(call.request_id, prompt, [label.text for label in task.labels])
        self._record("decision", scores.timings)
        return replace(decide(task, scores), worker=self._offer.worker, model=self._offer.model)

    async def _answer(self, call: EngineRequest, task: Task) -> AsyncGenerator[TextDelta | Answer, None]:
        prompt = self._templates[task.name].prompt(call.text, history=call.history, feeling=self._feeling(call))
        parts: list[str] = []
        outputs = self._engine.generate(call.request_id, prompt, self._sampling(call, task), resume=call.resume)
        async with aclosing(outputs):
            async for output in outputs:
                if isinstance(output, Completion):
                    yield self._finished(task, "".join(parts), output)
                else:
                    parts.append(output.text)
                    yield output

    def _finished(self, task: Task, text: str, completion: Completion) -> Answer:
        self._record("generation", completion.timings)
        return Answer(task.name, text, **vars(completion), worker=self._offer.worker, model=self._offer.model)

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
