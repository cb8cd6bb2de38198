"""A prompt that is continued token by token: TextDelta*, Completion. Knows no torch.

During a step, draft tokens may follow the newest token: they are computed with it, and each
accepted one saves a step. Between steps there are no draft tokens in `ids`.

An answer that another engine began is replayed from its tokens, so that all state, held-back text
and partial characters included, is as it was there. None of its text is given out again.
"""

from __future__ import annotations

from collections import abc
from itertools import islice, takewhile

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Sampling
from qwen_aio.engine.scheduling.acceptance import AcceptanceRate
from qwen_aio.engine.scheduling.prompt_lookup import PromptLookup
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.detokenizer import Detokenizer
from qwen_aio.engine.text.grammar import Grammar
from qwen_aio.engine.text.token_codec import TokenCodec
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.errors import InvalidRequest
from qwen_aio.result import Completion, FinishReason, SampledToken, TextDelta, TokenLogprob


class AnswerSequence(Sequence):
    """Rows: the prompt, then the answer so far. The newest token is not computed yet."""

    is_answer = True
    _finish_reason: FinishReason | None = None
    _first_s: float | None = None  # time of the first token
    _num_drafted = 0  # draft tokens at the end of `ids`, until they are computed

    def __init__(
        self,
        request_id: str,
        truncated: Truncated,
        *,
        sampling: Sampling,
        seed: int,
        resume: abc.Sequence[int],
        tokenizer: TokenCodec,
        end_ids: frozenset[int],
        arrived_s: float,
        top_logprobs: int | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        """`resume` may be the whole answer. Raises InvalidRequest if it goes on after its end, or not by `grammar`."""
        num_prompt = len(truncated.ids)
        num_rows = num_prompt + sampling.max_tokens
        super().__init__(request_id, [*truncated.ids], num_prompt, num_rows, arrived_s, truncated.truncation)
        self.sampling = sampling
        self.seed = seed
        self.top_logprobs = top_logprobs
        self.grammar = grammar
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        # A control token spelled out in plain letters ends the answer too.
        self._detokenizer = Detokenizer((*sampling.stop, *tokenizer.special_texts))
        self.acceptance = AcceptanceRate()
        self._lookup = PromptLookup()
        self._unverified: list[int] = []  # computed draft tokens that are not accepted yet
        self._seen = np.empty(num_rows, np.int64)  # `ids` without draft tokens, as an array
        self._seen[:num_prompt] = truncated.ids
        self._replay(resume)
        self._num_given = len(self.ids)  # rows known at arrival

    @property
    def is_decoding(self) -> bool:
        return len(self.ids) > self._num_given

    @property
    def is_finished(self) -> bool:
        return self._finish_reason is not None

    @property
    def first_logit_row(self) -> int:
        return self._num_given - 1

    @property
    def given_ids(self) -> list[int]:
        return self.ids[: self._num_given]

    @property
    def seen_ids(self) -> NDArray[np.int64]:
        """Prompt and answer so far, a view; between steps, the same as `ids`."""
        return self._seen[: len(self.ids) - self._num_drafted]

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far, resumed ones included."""
        return len(self.ids) - self.num_prompt

    def draft(self, *, max_tokens: int) -> int:
        """Append draft tokens, to be computed with the newest token; how many."""
        room = min(max_tokens, self.num_rows - len(self.ids) - 1)  # the last token of all is never computed
        proposed = self._lookup.propose(self.ids, max_tokens=room)
        draft = list(takewhile(self._tokenizer.text_ids.__contains__, proposed))  # nothing follows an end
        self.ids.extend(draft)
        self._num_drafted = len(draft)
        return len(draft)

    def advance(self, end: int) -> None:
        """Note that the rows before `end` are computed; draft tokens among them await `accept`."""
        super().advance(end)
        num_accepted = len(self.ids) - self._num_drafted
        self._unverified = self.ids[num_accepted:]
        del self.ids[num_accepted:]
        self._num_drafted = 0

    def accept(
        self, token: int, *, now_s: float, logprobs: abc.Mapping[int, float] | None = None
    ) -> list[TextDelta | Completion]:
        """Append the next token: its TextDelta, and the Completion if the answer ends.

        A token that was drafted is computed already, and counts in `num_computed`. `logprobs`: of the
        `top_logprobs` likeliest ids, best first, and of `token`.
        """
        if self._first_s is None:
            self._first_s = now_s
        listed = self._listed(token, logprobs) if logprobs else ()
        text = self._read(token)
        self._verify(token)
        if not self.is_finished:
            return [TextDelta(text, (token,), logprobs=listed)]
        text += self._detokenizer.flush()
        return [TextDelta(text, (token,), logprobs=listed), self._completion(first_s=self._first_s, last_s=now_s)]

    def resumed_completion(self, *, now_s: float) -> Completion:
        """The Completion of an answer that was whole when it was resumed: all its text was sent."""
        assert self._first_s is None
        self.admitted_s = now_s
        return self._completion(first_s=now_s, last_s=now_s)

    def _listed(self, token: int, logprobs: abc.Mapping[int, float]) -> tuple[SampledToken, ...]:
        """`token`, before it is read; nothing for the end, which is no part of the answer's text."""
        if token in self._end_ids:
            return ()
        named = {each: self._named(each, logprob) for each, logprob in logprobs.items()}
        top = tuple(islice(named.values(), self.top_logprobs))
        return (SampledToken(named[token], top, self._detokenizer.num_chars),)

    def _named(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(
            self._tokenizer.token_text(token), tuple(self._tokenizer.token_bytes(token)) or None, logprob
        )

    def _verify(self, token: int) -> None:
        if self._unverified[:1] == [token] and not self.is_finished:
            del self._unverified[0]
        else:
            self._unverified = []
            self.num_computed = len(self.ids) - 1

    def _replay(self, resume: abc.Sequence[int]) -> None:
        for number, token in enumerate(resume):
            if self._finish_reason is not None:
                raise InvalidRequest(
                    f"the answer is over after {number} of the {len(resume)} tokens from which it is to resume"
                    f" (finish_reason {self._finish_reason})",
                    param="resume",
                )
            self._read(token)

    def _read(self, token: int) -> str:
        """Append `token`; the text that it makes certain. Raises InvalidRequest where its grammar ends."""
        if self.grammar is not None:
            self.grammar.accept(token)
        self._seen[len(self.ids)] = token
        self.ids.append(token)
        text = "" if token in self._end_ids else self._detokenizer.feed(self._tokenizer.token_bytes(token))
        if token in self._end_ids or self._detokenizer.is_stopped:
            self._finish_reason = "stop"
        elif self.num_generated == self.sampling.max_tokens:
            self._finish_reason = "length"
        return text

    def _completion(self, *, first_s: float, last_s: float) -> Completion:
        assert self._finish_reason is not None
        usage, timings = self.usage(completion_tokens=self.num_generated), self.timings(first_s=first_s, last_s=last_s)
        return Completion(self._finish_reason, usage, timings, self.truncation)
