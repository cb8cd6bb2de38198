"""A prompt that is continued token by token. Knows no torch: gets tokens, gives Chunks of text.

During a step, guesses at what follows the newest token may stand behind it: they are computed with it, and each that
comes true spares a step. Between steps there is no guess among the tokens.

An answer that another engine began is read again from its tokens, so that everything here, held-back text and half
characters too, is as it was there; nothing of it is given out a second time.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Chunk, FinishReason, Sampling
from qwen_aio.engine.scheduling.acceptance import AcceptanceRate
from qwen_aio.engine.scheduling.prompt_lookup import PromptLookup
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.detokenizer import Detokenizer
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.errors import InvalidRequest


class AnswerSequence(Sequence):
    """Rows: the prompt, then what was generated, elsewhere or here. The newest token is always still to be computed."""

    def __init__(
        self,
        request_id: str,
        fitted: Truncated,
        *,
        sampling: Sampling,
        seed: int,
        resume: Tokens[int],
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        arrived_s: float,
    ) -> None:
        """The tokens of `resume` may be the whole answer. Raises InvalidRequest if it was over before the last one."""
        num_prompt = len(fitted.ids)
        num_rows = num_prompt + sampling.max_tokens
        super().__init__(request_id, [*fitted.ids], num_prompt, num_rows, arrived_s, fitted.cuts)
        self.sampling = sampling
        self.seed = seed
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        # The spelling of a control token in plain letters ends the answer too: nobody shall read one.
        self._detokenizer = Detokenizer((*sampling.stop, *tokenizer.special_texts))
        self._finish_reason: FinishReason | None = None
        self._num_chunks = 0
        self._first_s: float | None = None
        self.habit = AcceptanceRate()  # the guesser's
        self._lookup = PromptLookup()
        self._num_guessed = 0  # tokens at the end of `ids`, until they are computed
        self._hoped: list[int] = []  # guesses that are computed and still have to come true
        self._seen = np.empty(num_rows, np.int64)  # `ids` without guesses, for arithmetic
        self._seen[:num_prompt] = fitted.ids
        self._read_again(resume)
        self._num_given = len(self.ids)  # rows that were there at the beginning

    @property
    def is_answer(self) -> bool:
        return True

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
        """A view of the prompt and the answer so far; between steps, the same as `ids`."""
        return self._seen[: len(self.ids) - self._num_guessed]

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far, wherever they were generated."""
        return len(self.ids) - self.num_prompt

    def guess(self, *, max_tokens: int) -> int:
        """Put guesses at the next tokens behind the newest one, to be computed with it; how many."""
        room = min(max_tokens, self.num_rows - len(self.ids) - 1)  # the last token of all is never computed
        found = self._lookup.guess(self.ids, max_tokens=room)
        guess = list(takewhile(self._tokenizer.text_ids.__contains__, found))  # nothing follows an end
        self.ids.extend(guess)
        self._num_guessed = len(guess)
        return len(guess)

    def advance(self, end: int) -> None:
        """The rows before `end` are computed; guesses among them now have to come true."""
        super().advance(end)
        num_settled = len(self.ids) - self._num_guessed
        self._hoped = self.ids[num_settled:]
        del self.ids[num_settled:]
        self._num_guessed = 0

    def accept(self, token: int, *, now_s: float) -> Chunk:
        """Append the next token; what may be shown because of it, which may be no text yet.

        Where it is the one that was guessed, its row is computed already, and `num_computed` says so.
        """
        if self._first_s is None:
            self._first_s = now_s
        text = self._read(token)
        self._settle(token)
        if self._finish_reason is not None:
            text += self._detokenizer.flush()
            return self._last_chunk(text, (token,), first_s=self._first_s, last_s=now_s)
        chunk = Chunk(self._num_chunks, text, (token,), cuts=self.cuts)
        self._num_chunks += 1
        return chunk

    def closing_chunk(self, *, now_s: float) -> Chunk:
        """The last chunk of an answer that was whole when it came: all its text has been sent."""
        assert self.is_finished and self._first_s is None
        self.admitted_s = now_s
        return self._last_chunk("", (), first_s=now_s, last_s=now_s)

    def _settle(self, token: int) -> None:
        if self._hoped[:1] == [token] and not self.is_finished:
            del self._hoped[0]
        else:
            self._hoped = []
            self.num_computed = len(self.ids) - 1

    def _read_again(self, resume: Tokens[int]) -> None:
        for number, token in enumerate(resume):
            if self._finish_reason is not None:
                raise InvalidRequest(
                    f"the answer is over after {number} of the {len(resume)} tokens it shall go on behind"
                    f" (finish_reason {self._finish_reason})",
                    param="resume",
                )
            self._read(token)

    def _read(self, token: int) -> str:
        """Append `token`; the text that is certain because of it."""
        self._seen[len(self.ids)] = token
        self.ids.append(token)
        text = "" if token in self._end_ids else self._detokenizer.feed(self._tokenizer.token_bytes(token))
        if token in self._end_ids or self._detokenizer.is_stopped:
            self._finish_reason = "stop"
        elif self.num_generated == self.sampling.max_tokens:
            self._finish_reason = "length"
        return text

    def _last_chunk(self, text: str, token_ids: tuple[int, ...], *, first_s: float, last_s: float) -> Chunk:
        return Chunk(
            index=self._num_chunks,
            text=text,
            token_ids=token_ids,
            finish_reason=self._finish_reason,
            usage=self.usage(completion_tokens=self.num_generated),
            timings=self.timings(first_s=first_s, last_s=last_s),
            cuts=self.cuts,
        )
