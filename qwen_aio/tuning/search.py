"""What was learnt of each candidate: the search for the fastest, its table, and the settings that follow from it.

Knows neither processes nor files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import groupby

from qwen_aio.errors import QwenAioError, SetupError
from qwen_aio.tuning.halving import Candidate, Halving, Trial
from qwen_aio.tuning.measure import Throughput
from qwen_aio.tuning.toml_edit import Value

HEAD = ("workers x threads", "precision", "batch", "decisions/s", "tokens/s", "one decision", "score", "seconds")

FIRST_S = 60.0  # for a large model to be loaded on a busy machine

Measure = Callable[[Trial], Awaitable[Throughput]]  # raises QwenAioError for a candidate that cannot be had
Say = Callable[[str], None]
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Measured:
    """All measurements of a candidate together: a machine is not equally busy at all times."""

    speed: Throughput  # mean, weighted by time
    seconds: float

    def and_again(self, speed: Throughput, seconds: float) -> Measured:
        """With one measurement more."""
        total_s = self.seconds + seconds
        pairs = zip(astuple(self.speed), astuple(speed), strict=True)
        means = (None if new is None else (old * self.seconds + new * seconds) / total_s for old, new in pairs)
        return Measured(Throughput(*means), total_s)


@dataclass
class Results:
    """Of all candidates. Filled by `search` alone."""

    untried: list[Candidate]
    ranking: list[Candidate] = field(default_factory=list)  # best first, without those that have failed since
    measured: dict[Candidate, Measured] = field(default_factory=dict)
    failures: dict[Candidate, str] = field(default_factory=dict)
    left_out: list[Candidate] = field(default_factory=list)

    @property
    def best(self) -> Candidate:
        """Raises SetupError if nothing could be measured."""
        if not self.ranking:
            why = next(iter(self.failures.values()), "the time was over before; give it more with --seconds")
            raise SetupError(f"nothing could be measured: {why}")
        return self.ranking[0]

    def add_failure(self, candidate: Candidate, why: str) -> bool:
        """It cannot be had; whether that is news."""
        is_news = why not in self.failures.values()
        self.failures[candidate] = why
        self._mark_tried(candidate)
        return is_news

    def add_speed(self, turn: Trial, speed: Throughput) -> float:
        """The score of the candidate by all its measurements."""
        before = self.measured.get(turn.candidate)
        now = before.and_again(speed, turn.seconds) if before else Measured(speed, turn.seconds)
        self.measured[turn.candidate] = now
        self._mark_tried(turn.candidate)
        return now.speed.score

    def lines(self) -> Iterator[str]:
        """The table, best first, and what is missing in it."""
        rows = [HEAD, *(_row(candidate, self.measured[candidate]) for candidate in self.ranking)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for why, candidates in groupby(self.failures, key=lambda candidate: self.failures[candidate]):
            yield f"failed: {', '.join(map(str, candidates))}: {why}"
        if self.left_out:
            yield f"not tried, others like them are far behind: {', '.join(map(str, self.left_out))}"
        if self.untried:
            yield f"not tried, the time was over: {', '.join(map(str, self.untried))}"

    def _mark_tried(self, candidate: Candidate) -> None:
        if candidate in self.untried:
            self.untried.remove(candidate)


async def search(
    candidates: Sequence[Candidate], measure: Measure, *, budget_s: float, say: Say, clock: Clock = time.monotonic
) -> Results:
    """Measure by halving. What is not over when the time is, is cut off; a candidate that fails is left out.

    While nothing is measured yet a candidate may take FIRST_S, however little time there is.
    """
    findings, halving = Results(untried=list(candidates)), Halving(candidates)
    ends_at = clock() + budget_s
    while turn := halving.next_turn(left_s=ends_at - clock()):
        started_at = clock()
        limit = asyncio.timeout(max(ends_at - started_at, 0 if findings.measured else FIRST_S))
        try:
            async with limit:
                speed = await measure(turn)
        except TimeoutError:
            if not limit.expired():
                raise
            break
        except QwenAioError as exc:
            halving.failed(turn)
            if findings.add_failure(turn.candidate, exc.message):
                say(f"{turn.candidate}: {exc.message}")
        else:
            score = findings.add_speed(turn, speed)
            halving.measured(turn, score=score, took_s=clock() - started_at)
            say(f"{turn.candidate}: {speed}")
    findings.ranking, findings.left_out = halving.ranking, halving.left_out
    findings.untried = [candidate for candidate in findings.untried if candidate not in halving.left_out]
    return findings


def settings_of(best: Candidate, *, asked_precision: str | None, has_threads: bool) -> dict[str, Value]:
    """The keys of qwen_aio.toml that make a cluster run like this; `has_threads` says that the file sets them now."""
    # The fastest precision is not yet a sound one: auto judges that, unless a person has.
    precision = best.precision if best.precision == "fp32" else asked_precision or "auto"
    # A cluster divides the cores by itself, and one process alone is better off with all of them.
    threads: dict[str, Value] = {"threads": best.threads} if has_threads else {}
    return {"workers": str(best.workers), **threads, "precision": precision, "max_batch_tokens": best.max_batch_tokens}


def _row(candidate: Candidate, measured: Measured) -> tuple[str, ...]:
    speed = measured.speed
    return (
        f"{candidate.workers} x {candidate.threads}",
        candidate.precision,
        str(candidate.max_batch_tokens),
        *(_told(value) for value in (speed.decisions_per_s, speed.tokens_per_s)),
        "-" if speed.one_decision_ms is None else f"{speed.one_decision_ms:.0f} ms",
        _told(speed.score),
        _told(measured.seconds),
    )


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
