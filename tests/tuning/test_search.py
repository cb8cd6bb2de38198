"""The search with known measurements: its result, its table, and the settings."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.errors import InvalidModel, SetupError
from qwen_aio.tuning.halving import LONGEST_S, Candidate, Trial, grid
from qwen_aio.tuning.measure import Throughput
from qwen_aio.tuning.search import Results, fastest_settings, search
from tests.fakes import FakeClock

CANDIDATES = grid(cores=2, precisions=("int8", "fp32"))


class Machine:
    """Measures by a table; what it has no speed for cannot be had. Starting takes time, too."""

    def __init__(self, speeds: dict[Candidate, float], *, start_s: float = 1.0) -> None:
        self.clock = FakeClock()
        self.reported: list[str] = []
        self._speeds = speeds
        self._start_s = start_s

    async def measure(self, trial: Trial) -> Throughput:
        self.clock.advance(self._start_s)
        if trial.candidate not in self._speeds:
            raise InvalidModel(f"no {trial.candidate.precision} here")
        self.clock.advance(trial.seconds)
        speed = self._speeds[trial.candidate]
        return Throughput(speed, speed, 1000 / speed)

    async def search(self, *, budget_s: float) -> Results:
        return await search(CANDIDATES, self.measure, budget_s=budget_s, report=self.reported.append, clock=self.clock)


def table(results: Results) -> str:
    return "\n".join(results.lines())


async def test_the_best_comes_first_and_all_are_in_the_table():
    speeds = {candidate: 20.0 + rank for rank, candidate in enumerate(CANDIDATES)}
    machine = Machine(speeds)
    results = await machine.search(budget_s=120.0)
    assert results.best == CANDIDATES[-1]
    assert (results.untried, results.failures) == ([], {})
    head, first, *others = list(results.lines())
    assert [word for word in head.split() if word.endswith("/s")] == ["decisions/s", "tokens/s"]
    assert first.split()[:7] == ["2", "x", "1", "fp32", "64", "35.0", "35.0"]
    assert len(others) == len(CANDIDATES) - 1
    assert machine.reported[0] == "1 x 2 int8 256: 20.0 decisions/s, 20.0 tokens/s, 50.0 ms for one decision"
    assert 100 < machine.clock.now - 1000 < 121


async def test_a_precision_that_fails_is_left_out_and_reported_once():
    machine = Machine({candidate: 10.0 for candidate in CANDIDATES if candidate.precision == "fp32"})
    results = await machine.search(budget_s=120.0)
    assert results.best.precision == "fp32"
    failed = [line for line in table(results).splitlines() if line.startswith("failed")]
    assert len(failed) == 1
    assert sum("no int8 here" in line for line in machine.reported) == 1
    assert failed[0].startswith("failed: 1 x 2 int8 256, 2 x 1 int8 256, ")
    assert failed[0].endswith(": no int8 here")


async def test_candidates_that_are_much_slower_are_listed():
    speeds = {candidate: 10.0 if candidate.precision == "int8" else 3.0 for candidate in CANDIDATES}
    results = await Machine(speeds).search(budget_s=120.0)
    assert results.untried == []
    last_line = table(results).splitlines()[-1]
    assert last_line.startswith("not tried, others like them are much slower: 2 x 1 fp32 256, 1 x 2 fp32 128, ")
    assert not (results.measured.keys() & set(results.left_out))


async def test_candidates_without_time_are_listed():
    results = await Machine(dict.fromkeys(CANDIDATES, 10.0)).search(budget_s=7.0)
    assert results.best in CANDIDATES[:4]
    assert "not tried, the time was over: " in table(results)
    assert f"{CANDIDATES[-1]}" in table(results).splitlines()[-1]


async def test_a_candidate_is_cut_off_when_the_time_is_over_but_not_the_first():
    clock = FakeClock()

    async def measure(trial: Trial) -> Throughput:
        if trial.candidate != CANDIDATES[0]:
            clock.advance(0.5)
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)  # longer than there is
        return Throughput(1.0, 1.0, 1.0)

    results = await search(CANDIDATES, measure, budget_s=0.01, report=print, clock=clock)
    assert results.ranking == CANDIDATES[:1]
    assert results.untried == CANDIDATES[1:]


def test_no_time_for_any_candidate_is_an_error():
    with pytest.raises(SetupError, match=r"nothing could be measured: .*--seconds"):
        _ = Results(untried=CANDIDATES).best


async def test_if_all_fail_the_error_has_the_first_reason():
    with pytest.raises(SetupError, match="nothing could be measured: no int8 here"):
        _ = (await Machine({}).search(budget_s=60.0)).best


async def test_a_candidate_that_fails_at_the_end_is_neither_the_best_nor_in_the_table():
    machine = Machine({candidate: 20.0 + rank for rank, candidate in enumerate(CANDIDATES)})
    names = [str(candidate) for candidate in CANDIDATES]

    async def measure(trial: Trial) -> Throughput:
        if sum(f"{trial.candidate}: " in line for line in machine.reported) == 2:  # measured twice, so this is round 3
            raise SetupError(f"{trial.candidate} has died")
        return await machine.measure(trial)

    results = await search(CANDIDATES, measure, budget_s=600.0, report=machine.reported.append, clock=machine.clock)
    assert len(results.failures) == 4
    assert results.failures.keys().isdisjoint(results.ranking)
    assert str(results.best) == names[-5]
    assert len([line for line in results.lines() if not line.startswith("failed")]) == 1 + len(CANDIDATES) - 4


async def test_a_timeout_of_the_measurement_itself_is_raised():
    async def measure(_: Trial) -> Throughput:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await search(CANDIDATES, measure, budget_s=60.0, report=print, clock=FakeClock())


async def test_measurements_of_one_candidate_are_taken_together():
    machine = Machine({})
    times: list[float] = []

    async def measure(trial: Trial) -> Throughput:
        machine.clock.advance(trial.seconds)
        times.append(trial.seconds)
        return Throughput(float(len(times)), 1.0, None)

    results = await search(CANDIDATES[:3], measure, budget_s=30.0, report=print, clock=machine.clock)
    assert len(times) == 3 + 2
    assert results.best == CANDIDATES[2]  # the last of each round
    measured = results.measured[results.best]
    assert measured.seconds == pytest.approx(times[2] + times[4])
    assert measured.speed.decisions_per_s == pytest.approx((3 * times[2] + 5 * times[4]) / measured.seconds)
    assert measured.speed.one_decision_ms is None


@given(
    st.lists(st.floats(100, 240), min_size=len(CANDIDATES), max_size=len(CANDIDATES)),
    st.floats(1, 600),
    st.floats(0, 30),
)
async def test_noiseless_speeds_lead_to_the_best_within_the_time_but_for_one_candidate(speeds, budget_s, start_s):
    table = dict(zip(CANDIDATES, speeds, strict=True))
    machine = Machine(table, start_s=start_s)
    results = await machine.search(budget_s=budget_s)
    assert machine.clock.now - 1000 <= budget_s + start_s + LONGEST_S
    best = max(table[candidate] for candidate in results.measured)
    assert math.isclose(table[results.best], best)
    assert results.measured.keys() | set(results.untried) == set(CANDIDATES)


def test_only_what_takes_effect_is_written():
    best = Candidate(2, 1, "int8", 128)
    common = {"workers": "2", "max_batch_tokens": 128}
    assert fastest_settings(best, asked_precision=None, has_threads=False) == common | {"precision": "auto"}
    assert fastest_settings(best, asked_precision="auto", has_threads=False) == common | {"precision": "auto"}
    assert fastest_settings(best, asked_precision="int8", has_threads=False) == common | {"precision": "int8"}
    slow = Candidate(2, 1, "fp32", 128)
    assert fastest_settings(slow, asked_precision=None, has_threads=False) == common | {"precision": "fp32"}
    assert fastest_settings(slow, asked_precision=None, has_threads=True)["threads"] == 1
