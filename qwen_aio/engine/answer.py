"""A prompt that is continued token by token. Knows no torch: gets tokens, gives Chunks of text.

An answer that another engine began is read again from its tokens, so that everything here, held-back text and half
characters too, is as it was there; nothing of it is given out a second time.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from qwen_aio.core import Chunk, FinishReason, Sampling
from qwen_aio.engine.detokenizer import Detokenizer
from qwen_aio.engine.fitting import Fitted
from qwen_aio.engine.sequence import Sequence
from qwen_aio.engine.tokenizer import Tokenizer
from qwen_aio.errors import InvalidRequest


class Answer(Sequence):
    """Rows: the prompt, then what was generated, elsewhere or here. The newest token is always still to be computed."""

    def __init__(
        self,
        request_id: str,
        fitted: Fitted,
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
        self._num_sent = 0  # generated tokens that chunks told about
        self._first_s: float | None = None
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
    def num_generated(self) -> int:
        """Tokens of the answer so far, wherever they were generated."""
        return len(self.ids) - self.num_prompt

    def accept(self, token: int, *, now_s: float) -> Chunk | None:
        """Append the next token; what may be shown because of it, if anything. The last token always gives a Chunk."""
        if self._first_s is None:
            self._first_s = now_s
        text = self._read(token)
        if self._finish_reason is not None:
            return self._last_chunk(text + self._detokenizer.flush(), first_s=self._first_s, last_s=now_s)
        return self._chunk(text) if text else None

    def closing_chunk(self, *, now_s: float) -> Chunk:
        """The last chunk of an answer that was whole when it came: all its text has been sent."""
        assert self.is_finished and self.num_generated == self._num_sent
        self.admitted_s = now_s
        return self._last_chunk("", first_s=now_s, last_s=now_s)

    def _read_again(self, resume: Tokens[int]) -> None:
        for number, token in enumerate(resume):
            if self._finish_reason is not None:
                raise InvalidRequest(
                    f"the answer is over after {number} of the {len(resume)} tokens it shall go on behind"
                    f" (finish_reason {self._finish_reason})",
                    param="resume",
                )
            self._read(token)
        self._num_sent = len(resume)

    def _read(self, token: int) -> str:
        """Append `token`; the text that is certain because of it."""
        self.ids.append(token)
        text = "" if token in self._end_ids else self._detokenizer.feed(self._tokenizer.token_bytes(token))
        if token in self._end_ids or self._detokenizer.is_stopped:
            self._finish_reason = "stop"
        elif self.num_generated == self.sampling.max_tokens:
            self._finish_reason = "length"
        return text

    def _chunk(self, text: str) -> Chunk:
        chunk = Chunk(self._num_chunks, text, self._unsent_ids(), cuts=self.cuts)
        self._num_chunks += 1
        return chunk

    def _last_chunk(self, text: str, *, first_s: float, last_s: float) -> Chunk:
        return Chunk(
            index=self._num_chunks,
            text=text,
            token_ids=self._unsent_ids(),
            finish_reason=self._finish_reason,
            usage=self.usage(completion_tokens=self.num_generated),
            timings=self.timings(first_s=first_s, last_s=last_s),
            cuts=self.cuts,
        )

    def _unsent_ids(self) -> tuple[int, ...]:
        unsent = self.ids[self.num_prompt + self._num_sent :]
        self._num_sent = self.num_generated
        return tuple(unsent)
