"""The search for the fastest candidate: its results, their table, and the best settings.

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
FIRST_S = 60.0  # a large model loads this long on a busy machine

Measure = Callable[[Trial], Awaitable[Throughput]]  # raises QwenAioError for a candidate that fails
Report = Callable[[str], None]  # takes one line
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Measured:
    """The mean of a candidate's measurements: a machine is not equally busy at all times."""

    speed: Throughput  # weighted by time
    seconds: float

    def with_another(self, speed: Throughput, seconds: float) -> Measured:
        total_s = self.seconds + seconds
        pairs = zip(astuple(self.speed), astuple(speed), strict=True)
        means = (None if new is None else (old * self.seconds + new * seconds) / total_s for old, new in pairs)
        return Measured(Throughput(*means), total_s)


@dataclass
class Results:
    """Of all candidates. `search` alone fills it."""

    untried: list[Candidate]  # known at the end
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

    def add_speed(self, trial: Trial, speed: Throughput) -> float:
        """Add a measurement; the candidate's score by all of them."""
        before = self.measured.get(trial.candidate)
        now = before.with_another(speed, trial.seconds) if before else Measured(speed, trial.seconds)
        self.measured[trial.candidate] = now
        return now.speed.score

    def lines(self) -> Iterator[str]:
        """The table, best first, and the candidates that are missing in it."""
        rows = [HEAD, *(_row(candidate, self.measured[candidate]) for candidate in self.ranking)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for why, candidates in groupby(self.failures, key=lambda candidate: self.failures[candidate]):
            yield f"failed: {', '.join(map(str, candidates))}: {why}"
        if self.left_out:
            yield f"not tried, others like them are much slower: {', '.join(map(str, self.left_out))}"
        if self.untried:
            yield f"not tried, the time was over: {', '.join(map(str, self.untried))}"


async def search(
    candidates: Sequence[Candidate], measure: Measure, *, budget_s: float, report: Report, clock: Clock = time.monotonic
) -> Results:
    """Measure by halving.

    The end of the time interrupts a measurement; a candidate that fails is left out. Until
    something is measured a candidate may take FIRST_S, however little time there is.
    """
    results, halving = Results(untried=list(candidates)), Halving(candidates)
    ends_at = clock() + budget_s
    while trial := halving.next_trial(left_s=ends_at - clock()):
        started_at = clock()
        limit = asyncio.timeout(max(ends_at - started_at, 0 if results.measured else FIRST_S))
        try:
            async with limit:
                speed = await measure(trial)
        except TimeoutError:
            if not limit.expired():
                raise
            break
        except QwenAioError as exc:
            halving.failed(trial)
            if exc.message not in results.failures.values():
                report(f"{trial.candidate}: {exc.message}")
            results.failures[trial.candidate] = exc.message
        else:
            score = results.add_speed(trial, speed)
            halving.measured(trial, score=score, took_s=clock() - started_at)
            report(f"{trial.candidate}: {speed}")
    results.ranking, results.left_out = halving.ranking, halving.left_out
    reached = {*results.measured, *results.failures, *results.left_out}
    results.untried = [candidate for candidate in candidates if candidate not in reached]
    return results


def fastest_settings(best: Candidate, *, asked_precision: str | None, has_threads: bool) -> dict[str, Value]:
    """The keys of qwen_aio.toml for `best`; `has_threads`: the file sets threads now."""
    # The fastest precision need not be accurate enough: auto decides, unless the user has.
    precision = best.precision if best.precision == "fp32" else asked_precision or "auto"
    # A cluster divides the cores by itself, and one process alone is faster with all of them.
    threads: dict[str, Value] = {"threads": best.threads} if has_threads else {}
    return {"workers": str(best.workers), **threads, "precision": precision, "max_batch_tokens": best.max_batch_tokens}


def _row(candidate: Candidate, measured: Measured) -> tuple[str, ...]:
    speed = measured.speed
    return (
        f"{candidate.workers} x {candidate.threads}",
        candidate.precision,
        str(candidate.max_batch_tokens),
        *(_cell(value) for value in (speed.decisions_per_s, speed.tokens_per_s)),
        "-" if speed.one_decision_ms is None else f"{speed.one_decision_ms:.0f} ms",
        _cell(speed.score),
        _cell(measured.seconds),
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
