"""What tokens cost here: seconds on an ordinary worker of this service, learnt from what all of them report.

It makes requests comparable: a worker's speed is what it does of this work in a second, and must not depend on whether
it happened to get short requests or long ones. For a small model a call costs nearly the same whatever its length, for
a large one nearly in proportion to its tokens; so the fixed part is learnt beside the rate. Owned by the event loop.
"""

from __future__ import annotations

from qwen_aio.balancer.params import Params
from qwen_aio.core import Timings, Usage

FORGETTING = 0.02  # of what was learnt, so much fades with every call
FIRST_WEIGHT = 5.0  # calls that the first guess counts as
FIRST_TOKENS = 100.0
LEAST_S = 0.0005


class UsualSpeed:
    """One per balancer."""

    def __init__(self, rules: Params) -> None:
        self._prefill = _Line()
        for tokens in (0.0, FIRST_TOKENS):
            cost_s = rules.fixed_work_s + tokens / rules.prefill_tokens_per_s
            self._prefill.learn(tokens, cost_s, weight=FIRST_WEIGHT / 2)
        self._token_s = 1 / rules.decode_tokens_per_s

    def seconds(self, prefilled: float, generated: float) -> float:
        """Of a call with so many prompt tokens that are not cached, and so many new ones; never 0."""
        return max(self._prefill.at(prefilled), LEAST_S) + generated * self._token_s

    def seconds_of(self, usage: Usage) -> float:
        """Of a call that is over."""
        return self.seconds(prefilled(usage), usage.completion_tokens)

    def learn(self, usage: Usage, timings: Timings) -> None:
        """A call is over, and this is what it took inside its worker."""
        self._prefill.learn(prefilled(usage), timings.prefill_ms / 1000)
        if usage.completion_tokens:
            token_s = timings.decode_ms / 1000 / usage.completion_tokens
            self._token_s += FORGETTING * (token_s - self._token_s)


class _Line:
    """y = a + b x by least squares over the past, which fades; neither a nor b is negative, as no cost is."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0  # sums

    def learn(self, x: float, y: float, *, weight: float = 1.0) -> None:
        kept = 1 - FORGETTING
        self._n = self._n * kept + weight
        self._x = self._x * kept + weight * x
        self._y = self._y * kept + weight * y
        self._xx = self._xx * kept + weight * x * x
        self._xy = self._xy * kept + weight * x * y

    def at(self, x: float) -> float:
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        covariance = self._xy / self._n - mean_x * mean_y
        slope = max(covariance / variance, 0.0) if variance > 1e-9 else 0.0
        slope = min(slope, mean_y / mean_x) if mean_x > 0 else slope  # or the fixed part would be negative
        return mean_y + slope * (x - mean_x)


def prefilled(usage: Usage) -> int:
    """Tokens of the prompt that were not cached."""
    return max(usage.prompt_tokens - usage.cached_tokens, 0)
