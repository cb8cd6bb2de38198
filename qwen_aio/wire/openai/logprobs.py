"""Log probabilities in OpenAI's two shapes: that of chats, and the older one of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_aio.result import SampledToken, TokenLogprob


def chat_logprobs(tokens: Sequence[SampledToken]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat."""
    content = [_fields(each.token) | {"top_logprobs": [_fields(other) for other in each.top]} for each in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[SampledToken]) -> dict[str, Any]:
    """`logprobs` of a choice of a completion; the most likely tokens include the sampled one, as at OpenAI."""
    return {
        "tokens": [each.token.text for each in tokens],
        "token_logprobs": [each.token.logprob for each in tokens],
        "top_logprobs": [{other.text: other.logprob for other in (*each.top, each.token)} for each in tokens],
        "text_offset": [each.offset for each in tokens],
    }


def _fields(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": token.utf8}
