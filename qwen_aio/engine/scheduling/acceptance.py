"""When drafting pays: what a draft token costs by the clock, and how many are accepted.

A plain decode step of n answers gives n tokens. A draft token makes the step longer by the cost of
its row, and gives one token more if it is accepted. So drafting pays while the acceptance rate is
above n times that cost, counted in plain steps: this is the threshold. Knows neither tokens nor
torch. Owned by the engine thread.
"""

from __future__ import annotations

WEIGHT = 0.25  # of the newest value in an exponential mean
FIRST_PAUSE = 8  # decode steps without drafts after drafting did not pay; doubled each time ...
LONGEST_PAUSE = 64  # ... up to this many, so that a text that begins to quote late is noticed


class DraftCost:
    """The cost of a draft token beside a number of answers, measured in the engine's own steps."""

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}  # answers in a step -> its duration without drafts
        self._row_steps: dict[int, float] = {}  # answers in a step -> cost of one row, in plain steps

    def threshold(self, num_answers: int) -> float | None:
        """The acceptance rate above which drafting pays; None before a plain step was measured."""
        if num_answers not in self._plain_s:
            return None
        return num_answers * self._row_steps.get(num_answers, 0.0)

    def learn(self, *, num_answers: int, num_drafted: int, seconds: float) -> None:
        """Take the duration of one decode step."""
        if num_drafted == 0:
            self._plain_s[num_answers] = _mean(self._plain_s.get(num_answers), seconds)
        elif plain_s := self._plain_s.get(num_answers):
            cost = (seconds / plain_s - 1) / num_drafted
            # A row costs at most its share of a plain step; more means that the machine was busy.
            cost = min(max(cost, 0.0), 1 / num_answers)
            self._row_steps[num_answers] = _mean(self._row_steps.get(num_answers), cost)


class AcceptanceRate:
    """One answer's share of accepted draft tokens. Drafting pauses while it does not pay."""

    def __init__(self) -> None:
        self._rate: float | None = None  # None: the next draft is a trial
        self._pause = FIRST_PAUSE
        self._num_to_wait = 0

    def should_draft(self, *, threshold: float) -> bool:
        """Ask once in every decode step of the answer."""
        if self._num_to_wait:
            self._num_to_wait -= 1
            return False
        if self._rate is None:
            return True
        if self._rate > threshold:
            self._pause = FIRST_PAUSE
            return True
        self._rate = None  # after the pause the text is another one
        self._num_to_wait = self._pause - 1
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return False

    def learn(self, *, num_drafted: int, num_accepted: int) -> None:
        """Take the outcome of one draft; `num_drafted` is more than 0."""
        self._rate = _mean(self._rate, num_accepted / num_drafted)


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + WEIGHT * (value - mean)
