"""How many attempts may follow error answers: when everything fails, trying again only doubles the load."""

from __future__ import annotations

from collections.abc import Callable

from qwen_aio.balancer.params import Params

LARGEST = 20.0  # so many may follow one another


class RetryBudget:
    """A share of the requests plus some a second. Owned by the event loop."""

    def __init__(self, rules: Params, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._balance = LARGEST / 2
        self._counted_at = clock()

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance:.1f}>"

    def earn(self) -> None:
        """A request came."""
        self._add(self._rules.retry_share)

    def spend(self) -> bool:
        """Whether one more retry is allowed; if so it is counted."""
        now = self._clock()
        self._add((now - self._counted_at) * self._rules.retries_per_s)
        self._counted_at = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

    def _add(self, amount: float) -> None:
        self._balance = min(self._balance + amount, LARGEST)
