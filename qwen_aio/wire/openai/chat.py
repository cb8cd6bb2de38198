"""`POST /v1/chat/completions`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from qwen_aio.bounds import BOUNDS, MAX_TOP_LOGPROBS
from qwen_aio.core import Message, Rendering, Request, Role, SamplingWish
from qwen_aio.errors import InvalidRequest
from qwen_aio.result import SampledToken
from qwen_aio.visible import check_visible
from qwen_aio.wire.openai.choice import ChatChoice, ChatChunkChoice, FinishCode
from qwen_aio.wire.openai.fields import Harmless, OpenAiSent, SamplingShape
from qwen_aio.wire.openai.logprobs import chat_logprobs
from qwen_aio.wire.openai.model import Addressee
from qwen_aio.wire.openai.reply import ChoiceFields, Logprobs, Reply, ReplyObject
from qwen_aio.wire.openai.request import OpenAiRequest
from qwen_aio.wire.openai.response_format import ResponseFormat
from qwen_aio.wire.request import MAX_HISTORY

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}  # the others are system messages


class ChatCompletion(ReplyObject):
    """A whole reply to a chat."""

    object: Literal["chat.completion"] = "chat.completion"
    """Always this."""
    choices: list[ChatChoice]
    """One choice."""


class ChatChunk(ReplyObject):
    """A chunk of a reply to a chat."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    """Always this."""
    choices: list[ChatChunkChoice]
    """One choice; none in the chunk with `usage`."""


class ChatReply(Reply):
    """A message of the assistant."""

    prefix = "chatcmpl"
    whole_shape = ChatCompletion
    chunk_shape = ChatChunk

    def choice(self, text: str, finish_reason: FinishCode, logprobs: Logprobs) -> ChoiceFields:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}

    def chunk_choice(self, text: str, finish_reason: FinishCode | None, logprobs: Logprobs) -> ChoiceFields:
        return _chunk_choice({"content": text} if text else {}, finish_reason, logprobs)

    def logprobs(self, tokens: Sequence[SampledToken]) -> Logprobs:
        return chat_logprobs(tokens)

    def opening(self) -> list[ChoiceFields]:
        return [_chunk_choice({"role": "assistant", "content": ""}, None, None)]


def _chunk_choice(delta: dict[str, str], finish_reason: FinishCode | None, logprobs: Logprobs) -> ChoiceFields:
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


TEXT_PARTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    },
}


class ChatMessage(OpenAiSent):
    """One message; `content` is a string or a list of text parts."""

    harmless: ClassVar[Harmless] = {"tool_calls": ([],), "tool_call_id": (), "function_call": (), "audio": ()}

    model_config = ConfigDict(json_schema_extra={"required": ["role", "content"]})

    role: Literal["user", "assistant", "system", "developer"]
    """`system` and `developer`: the first one only, where the server allows it."""
    content: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, TEXT_PARTS]})] = None
    """A string, or a list of text parts, which become lines."""


class _Texts(NamedTuple):
    """The messages, taken apart."""

    system: str | None
    history: tuple[Message, ...]
    last: str  # the user's


class ChatRequest(OpenAiRequest):
    """A conversation that ends with the user's message."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"messages": [{"role": "user", "content": "你好"}], "max_tokens": 60},
                {"model": "qwen-aio/sentiment", "messages": [{"role": "user", "content": "快递太慢了,差评!"}]},
                {"messages": [{"role": "user", "content": "你好"}], "seed": 7, "logprobs": True, "top_logprobs": 2},
                {"messages": [{"role": "user", "content": "太失望了"}], "decide": "sentiment", "stream": True},
            ]
        }
    )

    kind_of_reply = ChatReply
    harmless: ClassVar[Harmless] = {
        **SamplingShape.harmless,
        "tools": ([],),
        "tool_choice": ("none",),
        "functions": ([],),
        "function_call": ("none",),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "chat_template": (),  # of vLLM, as what follows
        "chat_template_kwargs": ({},),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_HISTORY)]
    """The conversation; the last message is the user's."""
    max_completion_tokens: Annotated[int, BOUNDS["max_tokens"]] | None = None
    """The newer name of `max_tokens`, and wins."""
    logprobs: bool = False
    """Log probabilities of the sampled tokens, of the chat model."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """How many likely tokens are listed beside each."""
    response_format: ResponseFormat | None = None
    """JSON by a schema, where the server has the extra `json`."""
    decide: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Not OpenAI's: a decision task, whose label of the last message comes beside the answer."""

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs belong to logprobs; send logprobs: true", param="top_logprobs")
        return self

    @property
    def decides(self) -> bool:
        return self.decide is not None

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def wish(self) -> SamplingWish:
        """`max_completion_tokens` is the newer name of `max_tokens`, and wins."""
        newer = {} if self.max_completion_tokens is None else {"max_tokens": self.max_completion_tokens}
        return SamplingWish(**vars(super().wish()) | newer)

    def request_to(self, to: Addressee) -> Request:
        texts = _texts(self.messages)
        style: Literal["chat", "task"] = "chat" if to.is_chat_model else "task"
        return Request(
            texts.last,
            mode=to.task,
            decide=self.decide,
            history=texts.history,
            sampling=self.wish(),
            rendering=Rendering(style, texts.system, on_overflow=self.on_overflow),
            json_schema=self.response_format.schema_text() if self.response_format else None,
        )


def _texts(messages: Sequence[ChatMessage]) -> _Texts:
    """Raises InvalidRequest where they are no conversation that the user's message ends."""
    contents = [text_of(message.content, f"messages.{index}.content") for index, message in enumerate(messages)]
    system = None if messages[0].role in ROLES else contents[0]
    start = 0 if system is None else 1
    turns = [_turn(index, messages[index].role, contents[index]) for index in range(start, len(messages))]
    if not turns or turns[-1].role != "user":
        raise InvalidRequest("the last message must be the user's", param="messages")
    check_visible(turns[-1].content, param=f"messages.{len(messages) - 1}.content")
    return _Texts(system, tuple(turns[:-1]), turns[-1].content)


def _turn(index: int, role: str, content: str) -> Message:
    if role not in ROLES:
        raise InvalidRequest("there is one system message, and it comes first", param=f"messages.{index}.role")
    return Message(ROLES[role], content)


def text_of(content: object, where: str) -> str:
    """The text of a message's content; parts become lines. Raises InvalidRequest, which names `where`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{where} must be a string or a list of text parts", param=where)
    return "\n".join(_text_part(part, f"{where}.{index}") for index, part in enumerate(content))


def _text_part(part: object, where: str) -> str:
    fields = part if isinstance(part, dict) else {}
    kind, text = fields.get("type"), fields.get("text")
    if kind != "text":
        named = json.dumps(kind[:40]) if isinstance(kind, str) else "no type"
        raise InvalidRequest(f"{where}: only text parts are supported, not {named}", param=f"{where}.type")
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}.text must be a string", param=f"{where}.text")
    return text
