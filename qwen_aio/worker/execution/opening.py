"""Sentences of an answer are held back until they are checked; see tasks/opening.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from qwen_aio.core import Sampling
from qwen_aio.result import AnswerStart, Completion, Safety, TextDelta
from qwen_aio.tasks.sentences import first_sentence

MAX_HELD_CHARS = 160  # a sentence that goes on is judged by its beginning

EngineOutputs = AsyncGenerator[TextDelta | Completion, None]
Fits = Callable[[str, bool], bool]  # a sentence, and whether it is the first of the answer


class SentenceGate:
    """Holds deltas back until all sentences in them are judged, and shows none after one that does not fit.

    A delta is shown whole or not at all, so that its token ids always stand for its text: an answer can be
    resumed behind any delta. Only the last one is cut, where the sentence before the unfit one ends.
    """

    def __init__(self, fits: Fits, *, sent: str | None) -> None:
        """`sent`: the text that another worker has sent of an answer that is resumed."""
        self._fits = fits
        self._text = "" if sent is None else _not_judged(sent)  # of the answer
        self._held: list[TextDelta] = []
        self._is_cut = False
        self.is_begun = sent is not None  # a first sentence fits

    def feed(self, delta: TextDelta) -> list[TextDelta]:
        """The deltas that may be shown now."""
        if self._is_cut:
            return []
        self._held.append(delta)
        self._text += delta.text
        while (sentence := _sentence(self._text)) and self._pass(sentence):
            self._text = self._text[len(sentence) :]
        return self._released() if self.is_begun else []

    def end(self) -> list[TextDelta]:
        """What is left to show when the answer ends."""
        if not self._is_cut and (self._text or not self.is_begun) and self._pass(self._text):
            self._text = ""
        num_fit = self._num_fit()
        shown = self._released()
        num_fit -= sum(len(delta.text) for delta in shown)
        return [*shown, replace(self._held[0], text=self._held[0].text[:num_fit])] if num_fit > 0 else shown

    @property
    def is_shut(self) -> bool:
        """Does the first sentence not fit?"""
        return self._is_cut and not self.is_begun

    def _pass(self, sentence: str) -> bool:
        self._is_cut = not self._fits(sentence, not self.is_begun)
        self.is_begun = self.is_begun or not self._is_cut
        return not self._is_cut

    def _num_fit(self) -> int:
        """Characters of the held deltas that are judged and fit; negative if all are behind text of `sent`."""
        return sum(len(delta.text) for delta in self._held) - len(self._text)

    def _released(self) -> list[TextDelta]:
        num_fit, count = self._num_fit(), 0
        while count < len(self._held) and len(self._held[count].text) <= num_fit:
            num_fit -= len(self._held[count].text)
            count += 1
        shown, self._held = self._held[:count], self._held[count:]
        return shown


async def opened(
    draws: Sequence[Sampling],
    generate: Callable[[Sampling], EngineOutputs],
    *,
    fits: Fits | None,
    sent: str | None,
    safety: Safety | None,
) -> AsyncGenerator[AnswerStart | TextDelta | Completion, None]:
    """The outputs of the first draw whose first sentence fits, after its AnswerStart; none if no draw does.

    A later sentence that does not fit ends the text; the Completion still comes. An answer that is resumed
    after the text `sent` has later ones only, and ends where it would have ended. Without `fits` nothing is
    held back. The draw has begun when AnswerStart comes, so what the engine refuses is raised before it.
    Closing it closes the draw.
    """
    for sampling in draws:
        gate = SentenceGate(fits, sent=sent) if fits else None
        has_begun = False
        async with aclosing(generate(sampling)) as outputs:
            async for output in outputs:
                shown = [output] if gate is None else _shown(gate, output)
                if gate and gate.is_shut:
                    break
                if not has_begun and (gate is None or gate.is_begun):
                    yield AnswerStart(sampling.seed, safety)
                    has_begun = True
                for each in shown:
                    yield each
        if has_begun:
            return


def _shown(gate: SentenceGate, output: TextDelta | Completion) -> list[TextDelta | Completion]:
    return [*gate.end(), output] if isinstance(output, Completion) else [*gate.feed(output)]


def _sentence(text: str) -> str | None:
    """The first sentence of `text` if it can be judged."""
    return first_sentence(text) or (text if len(text) >= MAX_HELD_CHARS else None)


def _not_judged(text: str) -> str:
    """The end of `text` that is no whole sentence yet."""
    while sentence := _sentence(text):
        text = text[len(sentence) :]
    return text
