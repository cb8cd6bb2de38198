"""`POST /v1/completions`, for old clients: the model continues a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from qwen_aio.core import Rendering, Request
from qwen_aio.errors import InvalidRequest
from qwen_aio.result import SampledToken
from qwen_aio.visible import check_visible
from qwen_aio.wire.openai.choice import CompletionChoice, FinishCode
from qwen_aio.wire.openai.fields import Harmless, SamplingShape
from qwen_aio.wire.openai.logprobs import completion_logprobs
from qwen_aio.wire.openai.model import Addressee
from qwen_aio.wire.openai.reply import ChoiceFields, Logprobs, Reply, ReplyObject
from qwen_aio.wire.openai.request import OpenAiRequest

TEXT = {"type": "string"}
DEFAULT_MAX_TOKENS = 16  # as at OpenAI and in vLLM
MAX_LOGPROBS = 5  # as at OpenAI


class TextCompletion(ReplyObject):
    """A whole reply to a completion, or a chunk of it."""

    object: Literal["text_completion"] = "text_completion"
    """Always this."""
    choices: list[CompletionChoice]
    """One choice; none in the chunk with `usage`."""


class CompletionReply(Reply):
    """What follows the prompt."""

    prefix = "cmpl"
    whole_shape = chunk_shape = TextCompletion

    def choice(self, text: str, finish_reason: FinishCode, logprobs: Logprobs) -> ChoiceFields:
        return self.chunk_choice(text, finish_reason, logprobs)

    def chunk_choice(self, text: str, finish_reason: FinishCode | None, logprobs: Logprobs) -> ChoiceFields:
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def logprobs(self, tokens: Sequence[SampledToken]) -> Logprobs:
        return completion_logprobs(tokens)

    def opening(self) -> list[ChoiceFields]:
        return []


class CompletionRequest(OpenAiRequest):
    """A text to be continued, or the text that a task is about."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["prompt"],
            "examples": [
                {"prompt": "今天天气", "max_tokens": 8},
                {"model": "qwen-aio/sentiment", "prompt": "太失望了"},
            ],
        }
    )
    kind_of_reply = CompletionReply
    harmless: ClassVar[Harmless] = {
        **SamplingShape.harmless,
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
        "response_format": ({"type": "text"},),  # of a chat, as is the next
        "decide": (),
    }

    prompt: Annotated[
        Any, WithJsonSchema({"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 1}]})
    ] = None
    """A string, or a list of one."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """How many likely tokens are listed beside each sampled one."""

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    def request_to(self, to: Addressee) -> Request:
        text = self._text()
        check_visible(text, param="prompt")
        style: Literal["completion", "task"] = "completion" if to.is_chat_model else "task"
        wish = self.wish()
        if to.is_chat_model and wish.max_tokens is None:
            wish = replace(wish, max_tokens=DEFAULT_MAX_TOKENS)
        rendering = Rendering(style, on_overflow=self.on_overflow)
        return Request(text, mode=to.task, sampling=wish, rendering=rendering)

    def _text(self) -> str:
        prompts = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            raise InvalidRequest("prompt must be one string; several, and token ids, are not supported", param="prompt")
        return prompts[0]
