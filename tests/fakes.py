"""Fakes behind the product's real seams: an engine that follows a script, a clock that stands still, small tasks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence

from qwen_aio.core import ContextLimits, ModelIdentity, Prompt, Sampling, Text
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.errors import QwenAioError
from qwen_aio.result import Completion, LabelScore, SampledToken, Scores, TextDelta, Timings, TokenLogprob, Usage

FAKE_MODEL = ModelIdentity("fake", "0" * 16, is_bundled=False)


class FakeClock:
    """Time that passes only when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeEngine:
    """Scores every continuation by a table and answers with given pieces. Remembers what it was asked.

    Piece number n has the token id n, so that an answer is taken up again behind as many pieces as ids are given.

    `gate`, when given, must be set before any piece after the first is given out: a stream can be held open.
    """

    def __init__(
        self,
        *,
        probabilities: dict[str, float] | None = None,
        pieces: Sequence[str] = ("你", "好"),
        gate: asyncio.Event | None = None,
        error: QwenAioError | None = None,
        error_after: int = 0,
    ) -> None:
        self.context = ContextLimits(2048, 1024)
        self.probabilities = probabilities or {"正面": 0.05, "中性": 0.03, "负面": 0.9}
        self.pieces = tuple(pieces)
        self.gate = gate
        self.error = error
        self.error_after = error_after
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self.resumes: list[tuple[int, ...]] = []
        self.schemas: list[str | None] = []
        self.call_ids: list[str] = []
        self.open_streams = 0
        self.cancelled = 0

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        self.call_ids.append(request_id)
        self.prompts.append(prompt)
        if self.error:
            raise self.error
        if self.gate:
            await self._wait(self.gate.wait)
        scores = tuple(LabelScore(text, math.log(self.probabilities.get(text, 1e-9)), 1) for text in continuations)
        return Scores(scores, Usage(95, 71, 0), Timings(1.0, 80.0, 0.0, 81.0))

    async def generate(
        self,
        request_id: str,
        prompt: Prompt,
        sampling: Sampling,
        *,
        resume: Sequence[int] = (),
        top_logprobs: int | None = None,
        json_schema: str | None = None,
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        self.call_ids.append(request_id)
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        self.resumes.append(tuple(resume))
        self.schemas.append(json_schema)
        self.open_streams += 1
        try:
            for index, piece in enumerate(self.pieces[len(resume) :], start=len(resume)):
                if self.error and index == self.error_after:
                    raise self.error
                if index > len(resume) and self.gate:
                    await self._wait(self.gate.wait)
                yield TextDelta(
                    piece, (index,), logprobs=() if top_logprobs is None else (listed(index, top_logprobs),)
                )
            yield Completion("stop", Usage(60, 30, len(self.pieces)), Timings(1.0, 50.0, 100.0, 151.0))
        finally:
            self.open_streams -= 1

    def divide(self, text: str) -> list[str]:
        return list(text)

    def decode(self, token_ids: Sequence[int], *, stop: Sequence[str]) -> str:
        return "".join(self.pieces[each] for each in token_ids)

    async def tokenize(self, prompt: Prompt) -> list[int]:
        """One token a character, and one for each control token."""
        return [ord(letter) for each in prompt.segments for letter in (each.text if isinstance(each, Text) else "|")]

    async def _wait(self, wait: Callable[[], object]) -> None:
        try:
            await wait()  # type: ignore[misc]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def listed(index: int, count: int) -> SampledToken:
    """What a fake engine lists for its token `index`, beside `count` others."""
    others = tuple(TokenLogprob(f"o{other}", (111, 48 + other), -1.0 - other) for other in range(count))
    return SampledToken(TokenLogprob(f"t{index}", tuple(f"t{index}".encode()), -0.5), others, offset=index)


def user_text(prompt: Prompt) -> str:
    """The user's block of a prompt, without its role."""
    texts = [segment.text for segment in prompt.body if isinstance(segment, Text) and segment.can_cut]
    return texts[0].removeprefix("user\n")


class CountingGuard(EgressGuard):
    """An egress guard that says what a test sets."""

    def __init__(self, refused: int | None) -> None:
        super().__init__()
        self.said = refused

    @property
    def refused(self) -> int | None:
        return self.said
