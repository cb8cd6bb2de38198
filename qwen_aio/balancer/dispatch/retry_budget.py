"""Limits the retries after error answers: when everything fails, retries only double the load."""

from __future__ import annotations

from collections.abc import Callable

from qwen_aio.balancer.params import Params

MAX_BALANCE = 20.0  # retries in a burst


class RetryBudget:
    """A share of the requests, plus some a second."""

    def __init__(self, params: Params, clock: Callable[[], float]) -> None:
        self._params = params
        self._clock = clock
        self._balance = MAX_BALANCE / 2
        self._counted_at = clock()

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance:.1f}>"

    def earn(self) -> None:
        """A request came."""
        self._add(self._params.retry_share)

    def spend(self) -> bool:
        """Whether one more retry is allowed; if so it is counted."""
        now = self._clock()
        self._add((now - self._counted_at) * self._params.retries_per_s)
        self._counted_at = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

    def _add(self, amount: float) -> None:
        self._balance = min(self._balance + amount, MAX_BALANCE)
