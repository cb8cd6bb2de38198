"""`POST /internal/call`: a balancer's request to a worker's engine, and its events. Not public.

`POST /internal/tokens` has the same body, and answers with the tokens of the prompt.

Beyond what `/v1/run` takes, an engine request may carry the label that was decided before, how its
texts become a prompt, what OpenAI's clients want of the answer, and the tokens of one that another worker
began; the deltas of an answer carry their token ids, so that the next worker can continue it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from qwen_aio.bounds import MAX_SCHEMA_CHARS, MAX_TOKENS, MAX_TOP_LOGPROBS
from qwen_aio.core import DecidedLabel, EngineRequest, Message, Overflow, PromptStyle, Rendering
from qwen_aio.result import Answer, AnswerStart, Decision, EngineEvent, Safety, SampledToken, TextDelta
from qwen_aio.visible import check_visible
from qwen_aio.wire.event import frame, read_frame
from qwen_aio.wire.request import MAX_BODY_BYTES, History, SamplingFields
from qwen_aio.wire.result import DecisionShape, ReplyShape
from qwen_aio.wire.shape import Answered, Sent

ENGINE_PATH = "/internal/call"
TOKENS_PATH = "/internal/tokens"
MAX_ENGINE_REQUEST_BYTES = MAX_BODY_BYTES + 100_000  # the text of a request, and up to MAX_TOKENS token ids

TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class DecidedLabelShape(Sent):
    """The label that was decided before."""

    task: str
    label: str


class ResumeShape(Sent):
    """The tokens of the answer that have been sent already."""

    token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]


class TokensResponse(Answered):
    """The prompt of an engine request, as ids of the model's vocabulary."""

    tokens: list[TokenId]


class RenderingShape(Sent):
    """How the texts become a prompt."""

    style: PromptStyle
    system: str | None = None
    on_overflow: Overflow


class EngineRequestShape(SamplingFields):
    """The body of one engine request."""

    task: Annotated[str, Field(min_length=1, max_length=64)]
    text: str
    history: History
    decision: DecidedLabelShape | None = None
    resume: ResumeShape | None = None
    rendering: RenderingShape | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    json_schema: Annotated[str, Field(max_length=MAX_SCHEMA_CHARS)] | None = None
    explain: bool = False

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        check_visible(self.text, param="text")
        return self

    def to_core(self, request_id: str, traceparent: str = "") -> EngineRequest:
        return EngineRequest(
            request_id,
            self.task,
            self.text,
            history=tuple(Message(message.role, message.content) for message in self.history),
            sampling=self.wish(),
            decided=DecidedLabel(self.decision.task, self.decision.label) if self.decision else None,
            resume=tuple(self.resume.token_ids) if self.resume else (),
            timeout_s=self.timeout_s,
            traceparent=traceparent,
            rendering=Rendering(**vars(self.rendering)) if self.rendering else Rendering(),
            top_logprobs=self.top_logprobs,
            json_schema=self.json_schema,
            explain=self.explain,
        )


def engine_request_to_json(request: EngineRequest) -> bytes:
    """The body of `request`, which was checked when it came in and is not checked again."""
    fields = {
        "task": request.task,
        "text": request.text,
        "history": [vars(message) for message in request.history],
        "decision": vars(request.decided) if request.decided else None,
        "resume": {"token_ids": request.resume} if request.resume else None,
        "timeout_s": request.timeout_s,
        "rendering": _present(vars(request.rendering)) if request.rendering != Rendering() else None,
        "top_logprobs": request.top_logprobs,
        "json_schema": request.json_schema,
        "explain": request.explain or None,
        **vars(request.sampling),
    }
    return json.dumps(_present(fields), ensure_ascii=False).encode()


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


class EngineDecisionShape(DecisionShape):
    """The `decision` event: the only one of a decision."""

    model: str


class TextDeltaShape(Answered):
    """The `piece` event: text, and the tokens it was decoded from."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[SampledToken, ...] = ()

    def to_json(self) -> bytes:
        """Without `logprobs` where there are none."""
        return self.model_dump_json(exclude=None if self.logprobs else {"logprobs"}).encode()


class AnswerStartShape(Answered):
    """The `start` event: what a worker needs to resume the answer."""

    seed: int | None = None
    safety: Safety | None = None


class EngineAnswerShape(ReplyShape):
    """The `answer` event: the last one of an answer. Its text is what this request added."""

    model: str


def engine_frame(event: EngineEvent) -> bytes:
    """`event` as it is sent."""
    match event:
        case Decision():
            return frame("decision", EngineDecisionShape.from_core(event))
        case AnswerStart():
            return frame("start", AnswerStartShape(**vars(event)))
        case TextDelta(text, token_ids, logprobs=logprobs):
            return frame("piece", TextDeltaShape(text=text, token_ids=token_ids, logprobs=logprobs))
        case Answer():
            return frame("answer", EngineAnswerShape.from_core(event))


def read_engine_event(name: str, data: bytes) -> EngineEvent | None:
    """See `read_frame`."""
    return read_frame(name, data, _READERS)


_READERS: dict[str, Callable[[bytes], EngineEvent]] = {
    "decision": lambda data: EngineDecisionShape.model_validate_json(data).to_core(),
    "start": lambda data: AnswerStart(**vars(AnswerStartShape.model_validate_json(data))),
    "piece": lambda data: TextDelta(**vars(TextDeltaShape.model_validate_json(data))),
    "answer": lambda data: EngineAnswerShape.model_validate_json(data).to_core(),
}
