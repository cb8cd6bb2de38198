"""What executing a request needs of an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from qwen_aio.core import ContextLimits, Prompt, Sampling
from qwen_aio.result import Completion, Scores, TextDelta


class EngineClient(Protocol):
    """The real one is engine.service.EngineService."""

    @property
    def context(self) -> ContextLimits:
        """What fits."""

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        """Log probabilities of `continuations` after `prompt`."""

    def generate(
        self,
        request_id: str,
        prompt: Prompt,
        sampling: Sampling,
        *,
        resume: Sequence[int] = (),
        top_logprobs: int | None = None,
        json_schema: str | None = None,
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        """TextDelta*, Completion, after the tokens `resume`. Closing it frees the sequence.

        `top_logprobs`: likely tokens to list beside each sampled one; None: no log probabilities.
        `json_schema`, written as JSON: the answer keeps to it.
        """

    def decode(self, token_ids: Sequence[int], *, stop: Sequence[str]) -> str:
        """The text of an answer that is certain after these tokens; `stop` as in its Sampling."""

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin."""

    async def tokenize(self, prompt: Prompt) -> list[int]:
        """The token ids of the whole `prompt`."""
