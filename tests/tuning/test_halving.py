"""Which candidate is measured next: the best is found, and the time is kept."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.tuning.halving import LONGEST_S, OTHER_BATCHES, SHORTEST_S, USUAL_BATCH, Candidate, Halving, grid

GRID = grid(cores=2, precisions=("fp32",))
Course = list[tuple[Candidate, float]]  # each candidate measured, and for how long


def follow(halving: Halving, scores: dict[Candidate, float], *, budget_s: float, overhead_s: float) -> Course:
    """The trials until there is none; a candidate without a score fails."""
    course: Course = []
    left_s = budget_s
    while trial := halving.next_trial(left_s=left_s):
        took_s = trial.seconds + overhead_s
        left_s -= took_s
        course.append((trial.candidate, trial.seconds))
        if trial.candidate in scores:
            halving.measured(trial, score=scores[trial.candidate], took_s=took_s)
        else:
            halving.failed(trial)
    return course


def test_the_grid_has_every_way_to_divide_the_cores_once():
    candidates = grid(cores=6, precisions=("int8", "fp32"))
    assert len(candidates) == len(set(candidates)) == 4 * 2 * 4
    assert {(one.workers, one.threads) for one in candidates} == {(1, 6), (2, 3), (4, 1), (6, 1)}
    assert {one.max_batch_tokens for one in candidates} == {USUAL_BATCH, *OTHER_BATCHES}
    assert grid(cores=1, precisions=("fp32",))[0] == Candidate(1, 1, "fp32", USUAL_BATCH)
    assert max(one.workers for one in grid(cores=200, precisions=("fp32",))) == 64


def test_all_precisions_come_before_other_batches():
    precisions = [one.precision for one in grid(cores=4, precisions=("int8", "fp32"))]
    assert precisions == ["int8"] * 3 + ["fp32"] * 3 + ["int8"] * 9 + ["fp32"] * 9
    assert {one.max_batch_tokens for one in grid(cores=4, precisions=("int8", "fp32"))[:6]} == {USUAL_BATCH}


def test_each_round_keeps_the_better_half_and_takes_as_long():
    candidates = grid(cores=2, precisions=("fp32",))
    scores = {candidate: 10.0 + rank for rank, candidate in enumerate(candidates)}
    course = follow(Halving(candidates), scores, budget_s=60.0, overhead_s=0.0)
    rounds = [course[:8], course[8:12], course[12:]]
    assert [one for one, _ in rounds[0]] == candidates
    assert [one for one, _ in rounds[1]] == candidates[4:]
    assert [one for one, _ in rounds[2]] == candidates[6:]
    assert [round(sum(seconds for _, seconds in one)) for one in rounds] == [20, 20, 20]


def test_what_it_takes_to_start_is_part_of_a_turn():
    candidates = grid(cores=2, precisions=("fp32",))
    course = follow(Halving(candidates), dict.fromkeys(candidates, 1.0), budget_s=60.0, overhead_s=1.0)
    assert len(course) == 8 + 4 + 2
    assert 55 < sum(seconds + 1.0 for _, seconds in course) <= 65


def test_one_candidate_is_measured_once():
    candidates = grid(cores=1, precisions=("fp32",))[:1]
    halving = Halving(candidates)
    assert len(follow(halving, {candidates[0]: 1.0}, budget_s=60.0, overhead_s=0.0)) == 1
    assert halving.ranking == candidates


def test_without_time_for_all_the_best_of_the_tried_comes_first():
    candidates = grid(cores=2, precisions=("int8", "fp32"))
    halving = Halving(candidates)
    course = follow(halving, {one: 99.0 - rank for rank, one in enumerate(candidates)}, budget_s=4.0, overhead_s=1.0)
    assert 0 < len(course) < len(candidates)
    assert halving.ranking == [one for one, _ in course]


def test_a_round_that_was_cut_off_changes_nothing():
    candidates = grid(cores=2, precisions=("fp32",))
    halving = Halving(candidates)
    scores = {candidate: 10.0 + rank for rank, candidate in enumerate(candidates)}
    for _ in candidates:
        trial = halving.next_trial(left_s=100.0)
        assert trial is not None
        halving.measured(trial, score=scores[trial.candidate], took_s=1.0)
    trial = halving.next_trial(left_s=1.0)
    assert trial is not None
    halving.measured(trial, score=1e9, took_s=1.0)
    assert halving.next_trial(left_s=0.0) is None
    assert halving.ranking == candidates[::-1]


def play(halving: Halving, trials: int, *, failing: Collection[Candidate] = ()) -> None:
    """So many turns; a later candidate of the grid is a better one."""
    for _ in range(trials):
        trial = halving.next_trial(left_s=100.0)
        assert trial is not None
        if trial.candidate in failing:
            halving.failed(trial)
        else:
            halving.measured(trial, score=10.0 + GRID.index(trial.candidate), took_s=1.0)


def test_a_failure_in_a_later_round_gives_way_to_candidates_of_earlier_rounds():
    halving = Halving(GRID)
    play(halving, 8)
    play(halving, 4, failing=GRID[4:])
    assert halving.next_trial(left_s=100.0) is None
    assert halving.ranking == GRID[3::-1]


def test_both_finalists_may_fail():
    halving = Halving(GRID)
    play(halving, 8 + 4)
    play(halving, 2, failing=GRID[6:])
    assert halving.next_trial(left_s=100.0) is None
    assert halving.ranking == GRID[5::-1]


def test_a_candidate_that_has_just_failed_is_not_the_best_when_the_time_is_over():
    halving = Halving(GRID)
    play(halving, 8)
    play(halving, 4 - 1)
    play(halving, 1, failing=GRID[7:])
    assert halving.ranking == GRID[6::-1]


def test_none_is_left_if_all_fail_one_after_another():
    halving = Halving(GRID[:2])
    play(halving, 2, failing=GRID[:1])
    assert halving.next_trial(left_s=100.0) is None
    assert halving.ranking == GRID[1:2]
    halving = Halving(GRID[:2])
    play(halving, 2, failing=GRID[:2])
    assert halving.next_trial(left_s=100.0) is None
    assert halving.ranking == []


def test_other_batches_of_workers_that_are_much_slower_are_not_tried():
    candidates = grid(cores=2, precisions=("fp32",))
    halving = Halving(candidates)
    scores = {one: 3.0 if one.workers == 2 else 10.0 for one in candidates}
    course = follow(halving, scores, budget_s=120.0, overhead_s=1.0)
    assert halving.left_out == [one for one in candidates if one.workers == 2 and one != candidates[1]]
    assert len(course) == 5 + 3 + 2


def test_the_rest_of_a_precision_that_is_much_slower_is_not_tried():
    candidates = grid(cores=2, precisions=("int8", "fp32"))
    halving = Halving(candidates)
    scores = {one: 3.0 if one.precision == "fp32" else 10.0 for one in candidates}
    course = follow(halving, scores, budget_s=120.0, overhead_s=1.0)
    assert halving.left_out == [one for one in candidates if one.precision == "fp32" and one != candidates[2]]
    assert len(course) == 9 + 5 + 3 + 2


def made_up(cores: int, data: st.DataObject) -> dict[Candidate, float]:
    """A score for most candidates: the product of workers and precision, and a little noise."""
    candidates = grid(cores=cores, precisions=("int8", "fp32"))
    by_workers = {one.workers: data.draw(st.floats(1, 1000)) for one in candidates}
    by_precision = {one.precision: data.draw(st.floats(0.01, 1)) for one in candidates}
    scores = {one: by_workers[one.workers] * by_precision[one.precision] for one in candidates}
    gone = data.draw(st.sets(st.sampled_from(candidates)))
    return {one: score * data.draw(st.floats(0.8, 1.25)) for one, score in scores.items() if one not in gone}


@given(cores=st.integers(1, 32), data=st.data(), overhead_s=st.floats(0, 20), budget_s=st.floats(0, 2000))
def test_the_best_is_found_within_the_time_but_for_one_turn(cores, data, overhead_s, budget_s):
    scores = made_up(cores, data)
    halving = Halving(grid(cores=cores, precisions=("int8", "fp32")))
    course = follow(halving, scores, budget_s=budget_s, overhead_s=overhead_s)
    assert all(SHORTEST_S <= seconds <= LONGEST_S for _, seconds in course)
    assert sum(seconds + overhead_s for _, seconds in course[:-1]) <= budget_s + 1e-6
    tried = {one for one, _ in course} & scores.keys()
    if tried:
        judged = tried | (scores.keys() & set(halving.left_out))
        assert scores[halving.ranking[0]] == max(scores[one] for one in judged)
    else:
        assert halving.ranking == halving.left_out == []
