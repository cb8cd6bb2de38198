"""How much work a call will be, and how fast a worker gets work done: guesses that learn from what workers report.

Work is counted in reference seconds: what the call takes on an ordinary worker of this service (reference.py). The
balancer has no tokenizer; it counts characters and learns what they come to. Knows no worker by name and no HTTP.
Owned by the event loop.
"""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import fmean

from qwen_aio.balancer.cost.reference import UsualSpeed, prefilled
from qwen_aio.balancer.params import Params
from qwen_aio.core import EngineRequest, TaskKind, Usage

FIRST_TOKENS_PER_CHARACTER = 0.6
FIRST_ANSWER_TOKENS = 64.0
FIRST_CHARACTERS = 100.0  # so much weigh the first guesses, beside what is learnt
LEARNING_SHARE = 0.1  # of what was learnt before, so much gives way to what is learnt now
# A worker cuts what its context does not hold: the longest text is no more work than this many characters.
MOST_CHARACTERS = 4096

# A decision of more is long: half a step of a worker does not hold it (engine/scheduling/order.py).
# What of a text is cached shows only afterwards, so a text that nothing is cached of counts as at least so many tokens.
SHORT_TOKENS = 128
FEWEST_TOKENS_PER_CHARACTER = 0.2

SLOWEST, FASTEST = 0.01, 1000.0  # a speed of 0 would make a worker's cost infinite, and it would never be tried again
SHORTEST_SERVICE_S = 0.0001


class CostModel:
    """What calls of each task come to. One per balancer."""

    def __init__(self, reference: UsualSpeed) -> None:
        self._reference = reference
        self._expectations: defaultdict[str, _Expectation] = defaultdict(_Expectation)  # by task

    def work_s(self, call: EngineRequest, kind: TaskKind) -> float:
        """Reference seconds that `call` is expected to take; never 0."""
        expected = self._expectations[call.task]
        prompt_tokens = _characters(call) * expected.tokens_per_character
        new_tokens = expected.tokens_of_answer(call.sampling.max_tokens) if kind == "generation" else 0.0
        return self._reference.seconds(prompt_tokens, new_tokens)

    def is_long(self, call: EngineRequest, kind: TaskKind) -> bool:
        """Is `call` a decision whose worker is expected to take many steps?"""
        ratio = max(self._expectations[call.task].tokens_per_character, FEWEST_TOKENS_PER_CHARACTER)
        return kind == "decision" and _characters(call) * ratio > SHORT_TOKENS

    def learn(self, call: EngineRequest, kind: TaskKind, usage: Usage) -> None:
        """`call` was answered, and this is what it took. Tokens that were cached were no work."""
        expected = self._expectations[call.task]
        expected.learn_prompt(_characters(call), prefilled(usage))
        if kind == "generation":
            expected.learn_answer(usage.completion_tokens, call.sampling.max_tokens)


class _Expectation:
    """What one task's calls come to, in exponential averages."""

    def __init__(self) -> None:
        self._characters = FIRST_CHARACTERS
        self._prompt_tokens = FIRST_CHARACTERS * FIRST_TOKENS_PER_CHARACTER
        self._answer_tokens = FIRST_ANSWER_TOKENS

    @property
    def tokens_per_character(self) -> float:
        """Not cached ones, over all characters: a short text, mostly wrapping, says little about a long one."""
        return self._prompt_tokens / self._characters

    def tokens_of_answer(self, most: int | None) -> float:
        """Never more than the caller wants."""
        return self._answer_tokens if most is None else min(self._answer_tokens, most)

    def learn_prompt(self, characters: int, tokens: int) -> None:
        self._characters = _moved(self._characters, characters)
        self._prompt_tokens = _moved(self._prompt_tokens, tokens)

    def learn_answer(self, tokens: int, most: int | None) -> None:
        # One that was cut off where its caller wanted says only that answers are at least so long.
        if most is None or tokens < most or tokens > self._answer_tokens:
            self._answer_tokens = _moved(self._answer_tokens, tokens)


class WorkerSpeed:
    """Reference seconds of work that a worker does in a second of service. One per worker life."""

    def __init__(self, rules: Params, first: float = 1.0) -> None:
        """`first` is believed until results come."""
        self.value = first
        self._rules = rules
        self._results: deque[float] = deque(maxlen=rules.speed_results)

    def __repr__(self) -> str:
        return f"<Speed {self.value:.2f} after {len(self._results)} results>"

    @property
    def is_known(self) -> bool:
        """Has any result come, or is `value` a guess?"""
        return bool(self._results)

    def record(self, *, work_s: float, service_s: float) -> None:
        """A call of `work_s` took `service_s`. A drop of the last results' mean is believed whole, a rise in part."""
        self._results.append(work_s / max(service_s, SHORTEST_SERVICE_S))
        change = fmean(self._results) - self.value
        believed = change if change < 0 else self._rules.speed_rise * change
        self.value = min(max(self.value + believed, SLOWEST), FASTEST)


def _characters(call: EngineRequest) -> int:
    """Of everything that is not the same for each call of the task."""
    return min(len(call.text) + sum(len(message.content) for message in call.history), MOST_CHARACTERS)


def _moved(average: float, news: float) -> float:
    return average + LEARNING_SHARE * (news - average)
