"""The next token of an answer, drawn from logits: the same for every engine. Lives on the engine thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.sampler import Sampler, keep
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.result import Completion, TextDelta


class TokenPicker:
    """Counts what it draws."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.num_generated = 0

    def extend(
        self, answer: AnswerSequence, logits: NDArray[np.float32], *, now_s: float
    ) -> list[TextDelta | Completion]:
        """`answer` with one more token, drawn from the `logits` (vocab,) after it, which are overwritten.

        Raises InvalidRequest where its grammar ends.
        """
        if answer.top_logprobs is None:
            return answer.accept(self._pick(answer, logits), now_s=now_s)
        given = logits.copy()  # picking overwrites them
        token = self._pick(answer, logits)
        logprobs = self._sampler.ranked(given, count=answer.top_logprobs, token=token)
        return answer.accept(token, now_s=now_s, logprobs=logprobs)

    def _pick(self, answer: AnswerSequence, logits: NDArray[np.float32]) -> int:
        if answer.grammar is not None:
            keep(logits, answer.grammar.allowed())
        index, seen = answer.num_generated, answer.seen_ids
        self.num_generated += 1
        return self._sampler.pick(logits, answer.sampling, seen_ids=seen, seed=answer.seed, index=index)
