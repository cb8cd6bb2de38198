"""`POST /tokenize`, as vLLM has it: the tokens of the prompt that messages or a text become."""

from __future__ import annotations

from typing import Any

from qwen_aio.wire.openai.chat import ChatRequest
from qwen_aio.wire.openai.completion import CompletionRequest
from qwen_aio.wire.openai.fields import Harmless, check_harmless
from qwen_aio.wire.openai.request import OpenAiRequest
from qwen_aio.wire.shape import Answered

HARMLESS: Harmless = {"return_token_strs": (None, False)}  # besides those of a chat or a completion


class TokenizeResponse(Answered):
    """`tokens` are ids of the model's vocabulary."""

    count: int
    """How many tokens."""
    max_model_len: int
    """Prompt and answer together."""
    tokens: list[int]
    """Ids of the model's vocabulary."""


def read_tokenize(fields: dict[str, Any]) -> OpenAiRequest:
    """The chat or the completion whose prompt is meant. Raises InvalidRequest."""
    check_harmless(fields, HARMLESS)
    return (ChatRequest if "messages" in fields else CompletionRequest).parse(fields)
