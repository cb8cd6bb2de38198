"""What the requests of OpenAI's routes have in common on their way in and out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import model_validator

from qwen_aio.core import Capabilities, Request
from qwen_aio.errors import InvalidRequest
from qwen_aio.wire.openai.fields import SamplingShape
from qwen_aio.wire.openai.model import Addressee
from qwen_aio.wire.openai.reply import Reply, dangerous_labels


class OpenAiRequest(SamplingShape):
    """A request for one text."""

    kind_of_reply: ClassVar[type[Reply]]

    @property
    def decides(self) -> bool:
        """Whether the reply carries a decision beside the text."""
        return False

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options belong to a stream; send stream: true", param="stream_options")
        return self

    @property
    @abstractmethod
    def num_logprobs(self) -> int | None:
        """How many likely tokens are listed beside each sampled one; None: no log probabilities."""

    @abstractmethod
    def request_to(self, to: Addressee) -> Request:
        """The request, still without its id. Raises InvalidRequest."""

    def to_core(self, request_id: str, to: Addressee, *, allow_system_messages: bool) -> Request:
        """The request to `to`. Raises InvalidRequest."""
        request = self.request_to(to)
        if request.rendering.system is not None:
            _check_system(to, allow_system_messages=allow_system_messages)
        if self.num_logprobs is not None and not to.is_chat_model:
            raise InvalidRequest(f"logprobs are the chat model's; {to.id} gives none, leave it out", param="logprobs")
        if request.json_schema is not None and not to.is_chat_model:
            raise InvalidRequest(f"response_format is the chat model's; {to.id} has its own", param="response_format")
        return replace(request, request_id=request_id, top_logprobs=self.num_logprobs)

    def reply(self, request_id: str, to: Addressee, capabilities: Capabilities, *, created: int) -> Reply:
        """What writes the reply of `to`."""
        dangerous = dangerous_labels(capabilities.tasks)
        return self.kind_of_reply(
            request_id,
            created,
            to.id,
            dangerous,
            includes_usage=self.includes_usage,
            includes_logprobs=self.num_logprobs is not None,
            includes_decision=self.decides,
        )


def _check_system(to: Addressee, *, allow_system_messages: bool) -> None:
    """Raises InvalidRequest."""
    where = "messages.0.role"
    if not to.is_chat_model:
        raise InvalidRequest(f"{to.id} has a system message of its own; leave yours out", param=where)
    if not allow_system_messages:
        raise InvalidRequest(
            "system messages of clients are off; the server allows them with --allow-system-messages", param=where
        )
