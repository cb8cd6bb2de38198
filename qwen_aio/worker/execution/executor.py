"""Engine request -> engine -> outcome: check, render the prompt, score or generate, read the result.

The one place that knows both tasks and engine; knows no HTTP. Lives on the event loop and holds no
state of its own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from qwen_aio.core import Capabilities, EngineRequest, ModelIdentity, Prompt, Sampling, Task
from qwen_aio.errors import ContextExceeded, InvalidRequest, UnknownTask
from qwen_aio.language import Language, language_of
from qwen_aio.result import (
    Answer,
    AnswerStart,
    Completion,
    Decision,
    EngineEvent,
    FinishReason,
    Safety,
    SafetySource,
    Scores,
    TextDelta,
    Timings,
    Truncation,
    Usage,
    added_up,
)
from qwen_aio.routing import checked_texts, find_danger
from qwen_aio.safeguards import OpeningCheck
from qwen_aio.status.record import Count
from qwen_aio.tasks.chatml import continuation_prompt, conversation_prompt, turn
from qwen_aio.tasks.opening import fault_of
from qwen_aio.tasks.parse import UNCALIBRATED, decide
from qwen_aio.tasks.sentences import joined
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.cut import with_cut
from qwen_aio.worker.execution.engine import EngineClient
from qwen_aio.worker.execution.explanation import explained
from qwen_aio.worker.execution.extract import MAX_CHARS, fits, telling_sentences
from qwen_aio.worker.execution.opening import opened
from qwen_aio.worker.execution.safety import decide_safety

NUM_SEEDS = 2**63
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Checked:
    """What the check of a message found, and the decisions that it took."""

    safety: Safety | None = None
    decisions: Sequence[Decision] = ()
    reply: str | None = None  # the answer, if there is danger


class LocalExecutor:
    """Executes requests on one engine. Shared by all connections: everything it holds is immutable."""

    def __init__(
        self,
        engine: EngineClient,
        tasks: Mapping[str, Task],
        *,
        model: ModelIdentity,
        worker: str,
        record: Callable[[EngineRequest, Decision | Answer], None],
        count: Callable[[Count], None],
    ) -> None:
        """`record` gets every finished request and its outcome, `count` what checks led to."""
        self._engine = engine
        self._templates = {name: PromptTemplate(task) for name, task in tasks.items()}
        self._safety_task = next((task for task in tasks.values() if task.safety), None)
        calibration = self._safety_task.calibration.get(model.sha) if self._safety_task else None
        self._thresholds = calibration.thresholds if calibration else {}
        self._model = model
        self._offer = Capabilities(dict(tasks), engine.context, model.name, worker)
        self._record = record
        self._count = count

    def capabilities(self) -> Capabilities:
        return self._offer

    @property
    def safety_source(self) -> SafetySource | None:
        """What decides whether a message shows danger; None where no task does."""
        return ("model" if self._thresholds else "words") if self._safety_task else None

    def execute(self, call: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """EngineEvents, by the task's kind. Closing it cancels what runs.

        Raises UnknownTask at once; later InvalidRequest, QueueFull, RequestFailed, EngineStopped.
        """
        task = self._task(call.task)
        return self._decision(call, task) if task.kind == "decision" else self._answer(call, task)

    async def tokenize(self, call: EngineRequest) -> list[int]:
        """The token ids of the prompt of `call`; nothing is cut. Raises UnknownTask, InvalidRequest, EngineStopped."""
        return await self._engine.tokenize(self._prompt(call, self._task(call.task)))

    async def _decision(self, call: EngineRequest, task: Task) -> AsyncGenerator[Decision, None]:
        decide = partial(self._decide, call.request_id, task, must_fit=_must_fit(call))
        decision = await decide(call.text)
        if call.explain:  # the decision itself was recorded when it was made
            yield await explained(task, decision, call.text, divide=self._engine.divide, decide=decide)
            return
        self._record(call, decision)
        yield decision

    async def _decide(self, request_id: str, task: Task, text: str, *, must_fit: bool = False) -> Decision:
        prompt = replace(self._templates[task.name].prompt(text), must_fit=must_fit)
        scores = await self._engine.score(request_id, prompt, [label.text for label in task.labels])
        scores = await with_cut(self._engine, prompt, scores)
        calibration = task.calibration.get(self._model.sha, UNCALIBRATED)
        decision = decide(task, scores, calibration=calibration, language=language_of(text) or "en")
        return replace(decision, worker=self._offer.worker, model=self._model.name)

    async def _answer(self, call: EngineRequest, task: Task) -> AsyncGenerator[EngineEvent, None]:
        checked = await self._check_safety(call)
        answer = await self._unsampled(call, task, checked)
        if answer is not None:
            yield answer
            return
        parts: list[str] = []
        prompt = self._prompt(call, task)
        async with aclosing(self._sampled(call, task, prompt, checked)) as outputs:
            async for output in outputs:
                if isinstance(output, Completion):
                    completion = await with_cut(self._engine, prompt, output)
                    yield self._finished(call, "".join(parts), completion, checked)
                    return
                if isinstance(output, TextDelta):
                    parts.append(output.text)
                yield output
        yield self._replaced(call, task, checked)

    # ---- answers that are not sampled ----

    async def _check_safety(self, call: EngineRequest) -> _Checked:
        """Nothing for an answer that is resumed: the worker where it began has checked it."""
        task, texts = self._safety_task, checked_texts(call.text, call.history)
        if task is None or task.safety is None or call.resume:
            return _Checked()
        if danger := find_danger(texts, self._offer.tasks):  # a balancer of another version may not have asked
            return _Checked(danger.answer.safety, reply=danger.answer.text)
        if not self._thresholds:
            return _Checked(Safety(task.safety.harmless, None, "words"))
        safety, decisions = await decide_safety(
            texts,
            task.safety,
            self._thresholds.get(language_of("\n".join(texts)) or "en", {}),
            decide=partial(self._decide, call.request_id, task),
        )
        replies = task.safety.replies.get(safety.label)
        return _Checked(safety, decisions, reply=_in_language_of(call.text, replies) if replies else None)

    async def _unsampled(self, call: EngineRequest, task: Task, checked: _Checked) -> Answer | None:
        """The fixed answer to a message in danger, or sentences of the text where the task wants them."""
        if checked.reply is not None:
            self._count("safety_replies")
            return self._whole(call, checked.reply, "fixed", checked)
        if not self._extracts(call, task):
            return None
        if _must_fit(call) and not fits(call.text):
            raise ContextExceeded(
                f"the text has {len(call.text)} characters; sentences of at most {MAX_CHARS} are read"
            )
        template = self._templates[task.name]
        found, scores = await telling_sentences(self._engine, call.request_id, template, call.text)
        return self._whole(call, joined(found), "extracted", checked, scores, truncated=not fits(call.text))

    def _extracts(self, call: EngineRequest, task: Task) -> bool:
        """Whether the answer is made of sentences of the text."""
        is_meant = task.method == "extract" or (task.method == "auto" and self._model.is_bundled)
        return is_meant and call.rendering.style == "task"

    def _whole(
        self,
        call: EngineRequest,
        text: str,
        reason: FinishReason,
        checked: _Checked,
        scores: Sequence[Scores] = (),
        *,
        truncated: bool = False,
    ) -> Answer:
        """An answer that no token was sampled for; its costs are those of all that was scored for it."""
        costs: Sequence[Decision | Scores] = [*checked.decisions, *scores]
        usage = added_up(Usage, [cost.usage for cost in costs])
        timings = added_up(Timings, [cost.timings for cost in costs])
        return self._finished(call, text, Completion(reason, usage, timings, Truncation(truncated=truncated)), checked)

    def _finished(self, call: EngineRequest, text: str, completion: Completion, checked: _Checked) -> Answer:
        offer = self._offer
        answer = Answer(
            call.task, text, **vars(completion), worker=offer.worker, model=offer.model, safety=checked.safety
        )
        self._record(call, answer)
        return answer

    # ---- answers that are ----

    def _sampled(
        self, call: EngineRequest, task: Task, prompt: Prompt, checked: _Checked
    ) -> AsyncGenerator[AnswerStart | TextDelta | Completion, None]:
        """Nothing at all if no draw's first sentence fits."""
        sampling, check = self._sampling(call, task), self._opening_check(call, task)
        return opened(
            _draws(sampling) if check and not call.resume else [sampling],
            lambda draw: self._engine.generate(
                call.request_id,
                prompt,
                draw,
                resume=call.resume,
                top_logprobs=call.top_logprobs,
                json_schema=call.json_schema,
            ),
            fits=partial(self._fits, call, check) if check else None,
            sent=self._engine.decode(call.resume, stop=sampling.stop) if call.resume else None,
            safety=checked.safety,
        )

    def _opening_check(self, call: EngineRequest, task: Task) -> OpeningCheck | None:
        is_meant = task.opening is not None and task.opening.model == self._model.sha
        return task.opening if is_meant and call.rendering.style == "task" else None

    def _fits(self, call: EngineRequest, check: OpeningCheck, sentence: str, is_first: bool) -> bool:
        label = call.decided.label if call.decided else None
        earlier = [message.content for message in call.history]
        fault = fault_of(sentence, text=call.text, label=label, check=check, earlier=earlier)
        if fault == "empty" and not is_first:  # marks at the end of what came before
            return True
        if fault:
            self._count("openings_refused" if is_first else "answers_stopped")
            logger.info("sentence refused id=%s first=%s why=%s", call.request_id, is_first, fault)
        return fault is None

    def _replaced(self, call: EngineRequest, task: Task, checked: _Checked) -> Answer:
        assert task.opening is not None
        self._count("openings_replaced")
        return self._whole(call, _in_language_of(call.text, task.opening.instead), "fixed", checked)

    # ---- prompts ----

    def _prompt(self, call: EngineRequest, task: Task) -> Prompt:
        """What the model is to see. Raises UnknownTask, InvalidRequest."""
        template, rendering = self._templates[task.name], call.rendering
        match rendering.style:
            case "completion":
                prompt = continuation_prompt(call.text)
            case "chat":
                head = template.head if rendering.system is None else turn("system", rendering.system)
                prompt = conversation_prompt(head, call.history, call.text)
            case "task":
                prompt = template.prompt(call.text, history=call.history, feeling=self._feeling(call))
        return replace(prompt, must_fit=_must_fit(call))

    def _feeling(self, call: EngineRequest) -> str | None:
        """The text of the label that was decided before. Raises UnknownTask, InvalidRequest."""
        if call.decided is None:
            return None
        labels = {label.name: label.text for label in self._task(call.decided.task).labels}
        if call.decided.label not in labels:
            raise InvalidRequest(f"{call.decided.task} has no such label; known: {', '.join(labels)}", param="decision")
        return labels[call.decided.label]

    def _sampling(self, call: EngineRequest, task: Task) -> Sampling:
        """What the task says, as far as it fits, and what the caller asks for."""
        most = self._engine.context.answer_tokens
        return replace(task.sampling, max_tokens=min(task.sampling.max_tokens, most)).override(call.sampling)

    def _task(self, name: str) -> Task:
        if name not in self._offer.tasks:
            raise UnknownTask(f"unknown task {name!r}; known: {', '.join(sorted(self._offer.tasks))}", param="task")
        return self._offer.tasks[name]


def _draws(sampling: Sampling) -> list[Sampling]:
    """Two chances; a greedy answer would only be the same again."""
    if sampling.temperature == 0:
        return [sampling]
    return [sampling, replace(sampling, seed=None if sampling.seed is None else (sampling.seed + 1) % NUM_SEEDS)]


def _must_fit(call: EngineRequest) -> bool:
    return call.rendering.on_overflow == "error"


def _in_language_of(text: str, replies: Mapping[Language, str]) -> str:
    return replies[language_of(text) or "en"]
