"""A result, or its events, as OpenAI's clients read them: an object, or chunks and `[DONE]`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from qwen_aio.core import Task
from qwen_aio.errors import QwenAioError
from qwen_aio.result import Decided, Decision, Done, Event, Explained, Result, SampledToken, TextDelta, Usage
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.openai.choice import FinishCode
from qwen_aio.wire.result import DecisionShape
from qwen_aio.wire.shape import Answered

ChoiceFields = dict[str, Any]
Logprobs = dict[str, Any] | None
DONE = b"data: [DONE]\n\n"


class TokensShape(Answered):
    """OpenAI's `usage`."""

    prompt_tokens: int
    """Tokens of the prompt."""
    completion_tokens: int
    """Tokens of the answer."""
    total_tokens: int
    """Their sum."""
    prompt_tokens_details: dict[str, int]
    """`cached_tokens`: those that were not computed again."""

    @classmethod
    def from_core(cls, usage: Usage) -> TokensShape:
        cut = {"cut_tokens": usage.cut_tokens} if usage.cut_tokens else {}
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details={"cached_tokens": usage.cached_tokens} | cut,
        )


class ReplyObject(Answered):
    """A whole reply, or a chunk of it; `usage` is null in every chunk but the last.

    `decision` is not OpenAI's: in the whole reply or the first chunk, if it was asked for.
    """

    id: str
    """Made of the request id."""
    object: str = ""
    """The kind of object."""
    created: int
    """Seconds since 1970."""
    model: str
    """The chat model, or the task as a model."""
    choices: list[Any]
    """One choice; none in the chunk with `usage`."""
    usage: TokensShape | None = None
    """Tokens."""
    decision: Annotated[DecisionShape | None, Field(exclude_if=lambda decision: decision is None)] = None
    """Not OpenAI's: the decision that `decide` asks for."""


@dataclass(frozen=True)
class Reply(ABC):
    """Writes the reply to one request; the kinds of reply differ in their choices."""

    request_id: str
    created: int  # seconds since 1970
    model: str
    dangerous: frozenset[str]  # labels of the safety task that take effect
    includes_usage: bool  # at the end of a stream
    includes_logprobs: bool
    includes_decision: bool  # beside the text

    prefix: ClassVar[str]
    whole_shape: ClassVar[type[ReplyObject]]
    chunk_shape: ClassVar[type[ReplyObject]]

    @abstractmethod
    def choice(self, text: str, finish_reason: FinishCode, logprobs: Logprobs) -> ChoiceFields:
        """The one choice of a whole reply."""

    @abstractmethod
    def chunk_choice(self, text: str, finish_reason: FinishCode | None, logprobs: Logprobs) -> ChoiceFields:
        """The one choice of a chunk."""

    @abstractmethod
    def logprobs(self, tokens: Sequence[SampledToken]) -> Logprobs:
        """Those of a choice."""

    @abstractmethod
    def opening(self) -> list[ChoiceFields]:
        """That of a chunk before the first text, if there is one."""

    def whole(self, result: Result) -> bytes:
        """The body of a reply that is no stream."""
        logprobs = self._listed(result.answer.logprobs if result.answer else ())
        choice = self.choice(_text(result), finish_code(result, self.dangerous), logprobs)
        decision = result.decision if self.includes_decision else None
        return self._object(self.whole_shape, [choice], _tokens(result), decision).to_json()

    def frame(self, event: Event) -> bytes:
        """`event` as it is sent; the last one is more than one frame."""
        match event:
            case Decided(decision) if self.includes_decision:
                return _frame(self._object(self.chunk_shape, self.opening(), decision=decision))
            case Decided(decision):
                return self._first(self.chunk_choice(decision.text, None, None))
            case TextDelta(text, index=index, logprobs=tokens):
                choice = self.chunk_choice(text, None, self._listed(tokens))
                return self._chunk(choice) if index or self.includes_decision else self._first(choice)
            case Explained():
                return b""  # nothing asks for it here
            case Done(result):
                last = self._chunk(self.chunk_choice("", finish_code(result, self.dangerous), None))
                usage = _frame(self._object(self.chunk_shape, [], _tokens(result))) if self.includes_usage else b""
                return last + usage + DONE

    def _first(self, choice: ChoiceFields) -> bytes:
        return b"".join(map(self._chunk, [*self.opening(), choice]))

    def _listed(self, tokens: Sequence[SampledToken]) -> Logprobs:
        """None where they are not asked for; an empty list where no token was sampled."""
        return self.logprobs(tokens) if self.includes_logprobs else None

    def _chunk(self, choice: ChoiceFields) -> bytes:
        return _frame(self._object(self.chunk_shape, [choice]))

    def _object(
        self,
        shape: type[ReplyObject],
        choices: list[ChoiceFields],
        usage: TokensShape | None = None,
        decision: Decision | None = None,
    ) -> ReplyObject:
        return shape(
            id=f"{self.prefix}-{self.request_id}",
            created=self.created,
            model=self.model,
            choices=choices,
            usage=usage,
            decision=DecisionShape.from_core(decision) if decision else None,
        )


def finish_code(result: Result, dangerous: frozenset[str]) -> FinishCode:
    """Why the reply ends; `content_filter` where the safety decision gave its text."""
    answer = result.answer
    if answer is None:
        return "stop"
    if answer.finish_reason == "fixed" and answer.safety and answer.safety.label in dangerous:
        return "content_filter"
    return "length" if answer.finish_reason == "length" else "stop"


def dangerous_labels(tasks: Mapping[str, Task]) -> frozenset[str]:
    """The labels of the safety task whose fixed text replaces an answer."""
    return frozenset(label for task in tasks.values() if task.safety for label in task.safety.replies)


def error_chunk(error: QwenAioError, request_id: str) -> bytes:
    """The last frame of a stream that failed: OpenAI's clients raise it."""
    return _frame(ErrorResponse.from_core(error, request_id))


def _frame(shape: Answered) -> bytes:
    return b"data: " + shape.to_json() + b"\n\n"


def _text(result: Result) -> str:
    """The content: a decision's is its fixed format."""
    if result.answer is not None:
        return result.answer.text
    return result.decision.text if result.decision else ""


def _tokens(result: Result) -> TokensShape:
    main = result.answer or result.decision
    assert main is not None
    return TokensShape.from_core(main.usage)
