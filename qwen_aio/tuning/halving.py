"""Successive halving: measures all candidates briefly, then the better half longer, and so on.

    round 1    16 candidates, a little while each
    round 2     8
    round 3     4
    round 4     2, long enough to tell one from the other

Each round gets the same share of the time that is left. Candidates that are sure to be much slower
are left out: other batches of workers that are much slower with the usual one, and the rest of a
precision that is much slower than another one. Starts nothing and has no clock: its caller passes the
time that is left, and each score.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

from qwen_aio.cluster.plan import MAX_WORKERS
from qwen_aio.config import MAX_THREADS

SHORTEST_S, LONGEST_S = 0.8, 15.0  # of one measurement: a shorter one shows nothing, a longer one no more
USUAL_BATCH = 256
OTHER_BATCHES = (128, 512, 64)  # the likelier ones first
MUCH_SLOWER = 0.4  # of another's score: no batch, and no other number of workers, makes up for it


@dataclass(frozen=True)
class Candidate:
    """One way to run the service on this machine."""

    workers: int
    threads: int  # of each worker
    precision: str
    max_batch_tokens: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} {self.precision} {self.max_batch_tokens}"


@dataclass(frozen=True)
class Trial:
    """The candidate to measure, and for how long; starting it takes time besides."""

    candidate: Candidate
    seconds: float


def grid(*, cores: int, precisions: Sequence[str]) -> list[Candidate]:
    """All candidates, likelier `precisions` and the usual batch first, in case time is short."""
    counts = sorted({*(2**power for power in range(cores.bit_length())), cores})
    shapes = [(count, min(cores // count, MAX_THREADS)) for count in counts if count <= MAX_WORKERS]
    variants = [*product(precisions, [USUAL_BATCH]), *product(precisions, OTHER_BATCHES)]
    return [Candidate(*shape, *variant) for variant, shape in product(variants, shapes)]


class Halving:
    """One search: `next_trial`, then `measured` or `failed`, until there is no trial left."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._round = list(candidates)
        self._waiting = deque(candidates)
        self._scores: dict[Candidate, float] = {}  # of this round
        self._ranking: list[Candidate] = []  # of finished rounds, best first; the last round's come before the others
        self.left_out: list[Candidate] = []  # not tried: they would be much slower
        self._overheads_s: list[float] = []  # of each trial besides the measurement

    def next_trial(self, *, left_s: float) -> Trial | None:
        """With `left_s` to go; None at the end."""
        while self._waiting and self._is_much_slower(self._waiting[0]):
            self.left_out.append(self._waiting.popleft())
        if not self._waiting:
            self._finish_round()
        if not self._waiting or left_s <= 0:
            return None
        return Trial(self._waiting.popleft(), self._seconds(left_s))

    def measured(self, trial: Trial, *, score: float, took_s: float) -> None:
        self._scores[trial.candidate] = score
        self._overheads_s.append(took_s - trial.seconds)

    def failed(self, trial: Trial) -> None:
        """`trial` failed, though an earlier one of its candidate may have succeeded."""
        self._ranking = [candidate for candidate in self._ranking if candidate != trial.candidate]

    @property
    def ranking(self) -> list[Candidate]:
        """Best first, later rounds before others; the first round's so far while none is over."""
        return self._ranking or self._ranked()

    def _is_much_slower(self, candidate: Candidate) -> bool:
        if self._ranking:  # a candidate of a later round has been measured
            return False
        usual = self._scores.get(replace(candidate, max_batch_tokens=USUAL_BATCH))
        if usual is not None:
            return usual < MUCH_SLOWER * max(self._scores.values())
        others = ((self._scores.get(replace(one, precision=candidate.precision)), one) for one in self._scores)
        return any(own is not None and own < MUCH_SLOWER * self._scores[other] for own, other in others)

    def _ranked(self) -> list[Candidate]:
        return sorted(self._scores, key=lambda candidate: -self._scores[candidate])

    def _finish_round(self) -> None:
        self._ranking = self._ranked() + [candidate for candidate in self._ranking if candidate not in self._scores]
        better = self._ranking[: math.ceil(len(self._scores) / 2)]
        self._round = [candidate for candidate in self._round if candidate in better]
        self._waiting = deque(self._round if len(better) > 1 else [])
        self._scores = {}

    def _seconds(self, left_s: float) -> float:
        """The next trial's part of the time that is left; `_waiting` is without it already."""
        num_later_rounds = max(1, math.ceil(math.log2(len(self._round)))) - 1
        part_of_round = (len(self._waiting) + 1) / len(self._round)
        round_s = left_s / (part_of_round + num_later_rounds)
        overhead_s = fmean(self._overheads_s) if self._overheads_s else 0.0
        return min(max(round_s / len(self._round) - overhead_s, SHORTEST_S), LONGEST_S)
