"""When to guess: what a guessed row costs by the clock, and how often guesses come true.

A plain decode step of n answers gives n tokens. A guessed row makes it longer, by its cost, and gives one token more if
the guess comes true. So guessing pays while the chance of a guess is above n times the cost of its row, counted in
plain steps: that is the price of a guess. Knows neither tokens nor torch. Owned by the engine thread.
"""

from __future__ import annotations

WEIGHT = 0.25  # of the newest value in an exponential mean
FIRST_PAUSE = 8  # decode steps without a guess after guessing did not pay; doubled each time ...
LONGEST_PAUSE = 64  # ... up to this many, so that a text which begins to quote late is noticed


class DraftCost:
    """The price of a guess beside so many answers, measured in the engine's own steps."""

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}  # answers in a step -> how long it takes without guesses
        self._rows: dict[int, float] = {}  # answers in a step -> cost of one guessed row, in plain steps

    def price(self, num_answers: int) -> float | None:
        """None while there is nothing to compare with: the first step of so many answers has to be a plain one."""
        if num_answers not in self._plain_s:
            return None
        return num_answers * self._rows.get(num_answers, 0.0)

    def learn(self, *, num_answers: int, num_guessed: int, seconds: float) -> None:
        """A decode step took so long."""
        if num_guessed == 0:
            self._plain_s[num_answers] = _mean(self._plain_s.get(num_answers), seconds)
        elif plain_s := self._plain_s.get(num_answers):
            cost = (seconds / plain_s - 1) / num_guessed
            # A row costs no more in company than by itself: beyond that it is the machine that was disturbed.
            self._rows[num_answers] = _mean(self._rows.get(num_answers), min(max(cost, 0.0), 1 / num_answers))


class AcceptanceRate:
    """Whether one answer guesses: while it pays; when it does not, again after a pause."""

    def __init__(self) -> None:
        self._chance: float | None = None  # of a guessed token to come true; None: the next guess is a trial
        self._pause = FIRST_PAUSE
        self._num_to_wait = 0

    def wants_to_guess(self, *, price: float) -> bool:
        """Asked once in every decode step of the answer."""
        if self._num_to_wait:
            self._num_to_wait -= 1
            return False
        if self._chance is None:
            return True
        if self._chance > price:
            self._pause = FIRST_PAUSE
            return True
        self._chance = None  # the text goes on meanwhile; what it was like then says little
        self._num_to_wait = self._pause - 1
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return False

    def learn(self, *, num_guessed: int, num_accepted: int) -> None:
        """What came of a guess; `num_guessed` is more than 0."""
        self._chance = _mean(self._chance, num_accepted / num_guessed)


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + WEIGHT * (value - mean)
