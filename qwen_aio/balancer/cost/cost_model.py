"""Predicts how much work a request is, and learns from what workers report.

Work is counted in reference seconds: the time on an ordinary worker of this service. So requests
are comparable, and a worker's speed does not depend on whether it got short or long ones. With a
small model a request costs nearly the same whatever its length, with a large one nearly in
proportion to its tokens; so the model fits a fixed part and a rate. The balancer has no tokenizer:
it counts characters and learns how many tokens they are. Knows no worker and no HTTP.
"""

from __future__ import annotations

from collections import defaultdict

from qwen_aio.balancer.params import Params
from qwen_aio.core import EngineRequest, TaskKind
from qwen_aio.result import Timings, Usage

FIRST_TOKENS_PER_CHARACTER = 0.6
FIRST_ANSWER_TOKENS = 64.0
FIRST_CHARACTERS = 100.0  # the weight of the first guesses beside what is learnt
LEARNING_RATE = 0.1  # of the moving averages per task
MAX_CHARACTERS = 4096  # a worker truncates a text to its context: a longer one is no more work

EXPLAINED_WORK = 3.0  # of an explained decision, in plain ones
# A decision of more tokens is long: half a step of a worker does not hold it
# (engine/scheduling/order.py). How much of a text is cached shows only afterwards, so an uncached
# text counts as at least this many tokens.
SHORT_TOKENS = 128
MIN_TOKENS_PER_CHARACTER = 0.2

FADE = 0.02  # the share of older measurements that fades with every request
FIRST_WEIGHT = 5.0  # requests that the first guess of the prefill cost counts as
FIRST_TOKENS = 100.0
MIN_PREFILL_S = 0.0005


class CostModel:
    """What requests cost on this machine, by task and in tokens. One per balancer."""

    def __init__(self, params: Params) -> None:
        self._tasks: defaultdict[str, _TaskAverages] = defaultdict(_TaskAverages)
        self._prefill = _FadingLine()  # tokens -> seconds
        for tokens in (0.0, FIRST_TOKENS):
            cost_s = params.fixed_work_s + tokens / params.prefill_tokens_per_s
            self._prefill.add(tokens, cost_s, weight=FIRST_WEIGHT / 2)
        self._token_s = 1 / params.decode_tokens_per_s

    def work_s(self, request: EngineRequest, kind: TaskKind) -> float:
        """The predicted work of `request` in reference seconds; above 0."""
        task = self._tasks[request.task]
        prompt_tokens = _num_characters(request) * task.tokens_per_character
        new_tokens = task.answer_tokens(request.sampling.max_tokens) if kind == "generation" else 0.0
        return self.seconds(prompt_tokens, new_tokens) * (EXPLAINED_WORK if request.explain else 1.0)

    def is_long(self, request: EngineRequest, kind: TaskKind) -> bool:
        """Is `request` a decision that is predicted to take its worker many steps?"""
        ratio = max(self._tasks[request.task].tokens_per_character, MIN_TOKENS_PER_CHARACTER)
        return kind == "decision" and _num_characters(request) * ratio > SHORT_TOKENS

    def seconds(self, prefilled: float, generated: float) -> float:
        """Reference seconds of so many uncached prompt tokens and so many new ones; above 0."""
        return max(self._prefill.at(prefilled), MIN_PREFILL_S) + generated * self._token_s

    def seconds_of(self, usage: Usage) -> float:
        """Reference seconds of a finished request."""
        return self.seconds(_num_prefilled(usage), usage.completion_tokens)

    def learn_tokens(self, request: EngineRequest, kind: TaskKind, usage: Usage) -> None:
        """`request` is finished and took these tokens. Cached tokens count as no work."""
        task = self._tasks[request.task]
        task.learn_prompt(_num_characters(request), _num_prefilled(usage))
        if kind == "generation":
            task.learn_answer(usage.completion_tokens, request.sampling.max_tokens)

    def learn_seconds(self, usage: Usage, timings: Timings) -> None:
        """One worker computed all of these tokens in this time."""
        self._prefill.add(_num_prefilled(usage), timings.prefill_ms / 1000)
        if usage.completion_tokens:
            token_s = timings.decode_ms / 1000 / usage.completion_tokens
            self._token_s += FADE * (token_s - self._token_s)


class _TaskAverages:
    """Moving averages of one task's requests."""

    def __init__(self) -> None:
        self._characters = FIRST_CHARACTERS
        self._prompt_tokens = FIRST_CHARACTERS * FIRST_TOKENS_PER_CHARACTER
        self._answer_tokens = FIRST_ANSWER_TOKENS

    @property
    def tokens_per_character(self) -> float:
        """Uncached tokens over all characters; a short text, mostly template, hardly moves it."""
        return self._prompt_tokens / self._characters

    def answer_tokens(self, max_tokens: int | None) -> float:
        return self._answer_tokens if max_tokens is None else min(self._answer_tokens, max_tokens)

    def learn_prompt(self, characters: int, tokens: int) -> None:
        self._characters += LEARNING_RATE * (characters - self._characters)
        self._prompt_tokens += LEARNING_RATE * (tokens - self._prompt_tokens)

    def learn_answer(self, tokens: int, max_tokens: int | None) -> None:
        # An answer that ended at its limit says only that answers are at least that long.
        if max_tokens is None or tokens < max_tokens or tokens > self._answer_tokens:
            self._answer_tokens += LEARNING_RATE * (tokens - self._answer_tokens)


class _FadingLine:
    """y = a + b x by least squares over fading measurements; neither a nor b is negative."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5  # of 1, x, y, x x and x y

    def add(self, x: float, y: float, *, weight: float = 1.0) -> None:
        terms = (1.0, x, y, x * x, x * y)
        self._sums = [(1 - FADE) * total + weight * term for total, term in zip(self._sums, terms, strict=True)]

    def at(self, x: float) -> float:
        mean_x, mean_y, mean_xx, mean_xy = (total / self._sums[0] for total in self._sums[1:])
        variance, covariance = mean_xx - mean_x * mean_x, mean_xy - mean_x * mean_y
        slope = max(covariance / variance, 0.0) if variance > 1e-9 else 0.0
        slope = min(slope, mean_y / mean_x) if mean_x > 0 else slope  # so the fixed part is >= 0
        return mean_y + slope * (x - mean_x)


def _num_characters(request: EngineRequest) -> int:
    """Characters of everything that differs between requests of one task."""
    texts = [request.text, request.rendering.system or "", *(message.content for message in request.history)]
    return min(sum(map(len, texts)), MAX_CHARACTERS)


def _num_prefilled(usage: Usage) -> int:
    """Prompt tokens that were computed: neither cached nor cut."""
    return max(usage.prompt_tokens - usage.cached_tokens - usage.cut_tokens, 0)
