from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.batches import Head, learning_rate, make_batch, plan
from training.recipe import TASKS, Phase, Recipe
from training.rows import Row, Rows


def rows_of(lengths):
    return Rows.collect((Row(ids=tuple(range(1, n + 1)), answer=(*[False] * (n - 1), True)), "here") for n in lengths)


def all_tasks(lengths):
    return {task: rows_of(lengths) for task in TASKS}


def recipe_of(*, repeats=1.0, budget=4096, **changes):
    phase = Phase({"here": repeats}, batch_tokens=budget, peak_lr=1e-3, final_lr=1e-5, warmup_steps=2)
    return Recipe(phases=(phase,), **changes)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=60), st.integers(30, 200))
def test_a_plan_sees_every_row_once_and_fills_no_batch_beyond_its_budget(lengths, budget):
    rows = all_tasks(lengths)
    slots = plan(rows, recipe_of(budget=budget, sort_window=16))
    for task in TASKS:
        seen = [row for slot in slots if slot.task == task for row in slot.rows]
        assert sorted(seen) == list(range(len(lengths)))
    assert all(len(slot.rows) * max(lengths[row] for row in slot.rows) <= budget for slot in slots)


def test_the_same_recipe_gives_the_same_plan_and_the_same_batches():
    rows, recipe = all_tasks([5, 9, 3, 12, 7] * 8), recipe_of(repeats=1.6, budget=64)
    first, second = plan(rows, recipe), plan(rows, recipe)
    heads = dict.fromkeys(TASKS, Head((1, 2)))
    assert len(first) == len(second)
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        assert (one.task, one.lr) == (other.task, other.lr)
        np.testing.assert_array_equal(one.rows, other.rows)
        batches = [make_batch(slot, rows[slot.task], heads, step=step, recipe=recipe) for slot in (one, other)]
        for mine, theirs in zip(vars_of(batches[0]), vars_of(batches[1]), strict=True):
            assert torch.equal(mine, theirs)


def vars_of(batch):
    return tuple(vars(batch).values())


def test_fractional_repeats_take_their_share_of_the_rows():
    slots = plan(all_tasks([4] * 2000), recipe_of(repeats=1.3))
    counts = np.bincount(np.concatenate([slot.rows for slot in slots if slot.task == "chat"]))
    assert set(counts) == {1, 2}
    assert 0.25 < (counts == 2).mean() < 0.35


def test_every_answer_token_is_predicted_from_the_position_before_it():
    rows, recipe = all_tasks([6, 4, 5]), recipe_of(lm_share=0.0)
    heads = dict.fromkeys(TASKS, Head((1,)))
    slot = next(slot for slot in plan(rows, recipe) if slot.task == "chat")
    batch = make_batch(slot, rows["chat"], heads, step=0, recipe=recipe)
    assert batch.is_answer.all()
    assert sorted(batch.targets.tolist()) == [4, 5, 6]  # each row's last token
    torch.testing.assert_close(batch.rows.flatten()[batch.positions], batch.targets - 1)


def test_a_label_is_wanted_after_the_last_token_of_its_row():
    decided = [(Row((1, 2, 3), (False,) * 3, (0.9, 0.1)), "here"), (Row((4, 5), (False,) * 2, (0.2, 0.8)), "here")]
    rows, recipe = {"sentiment": Rows.collect(decided)}, recipe_of(lm_share=0.0)
    [slot] = plan(rows, recipe)
    batch = make_batch(slot, rows["sentiment"], {"sentiment": Head((9,), (7, 8))}, step=0, recipe=recipe)
    wanted = {3: [0.9, 0.1], 5: [0.2, 0.8]}
    last = batch.rows.flatten()[batch.ends].tolist()
    torch.testing.assert_close(batch.soft, torch.tensor([wanted[token] for token in last]))
    assert batch.label_ids.tolist() == [7, 8]
    assert len(batch.targets) == 0


def test_padding_is_never_predicted():
    rows, recipe = all_tasks([3, 20]), recipe_of(lm_share=1.0)
    heads = dict.fromkeys(TASKS, Head((1,)))
    slot = next(slot for slot in plan(rows, recipe) if slot.task == "chat")
    batch = make_batch(slot, rows["chat"], heads, step=0, recipe=recipe)
    assert len(batch.targets) == 2 + 19
    assert (batch.targets > 0).all()


def test_phases_follow_one_another_and_a_later_one_changes_nothing_in_an_earlier_one():
    rows, alone = all_tasks([5, 9, 3, 12] * 30), recipe_of(budget=64)
    both = replace(alone, phases=(*alone.phases, replace(alone.phases[0], batch_tokens=32)))
    first, whole = plan(rows, alone), plan(rows, both)
    assert len(whole) > 2 * len(first)
    for one, other in zip(first, whole, strict=False):
        assert (one.task, one.lr, one.rows.tolist()) == (other.task, other.lr, other.rows.tolist())
    assert whole[len(first)].lr == whole[0].lr < max(slot.lr for slot in whole)


def test_a_run_that_goes_on_from_a_phase_is_the_rest_of_the_whole_one():
    rows, alone = all_tasks([5, 9, 3, 12] * 30), recipe_of(budget=64)
    both = replace(alone, phases=(*alone.phases, replace(alone.phases[0], batch_tokens=32)))
    rest, whole = plan(rows, replace(both, first_phase=1)), plan(rows, both)
    assert [(slot.task, slot.lr, slot.rows.tolist()) for slot in rest] == [
        (slot.task, slot.lr, slot.rows.tolist()) for slot in whole[len(plan(rows, alone)) :]
    ]


def test_the_learning_rate_warms_up_and_ends_low():
    phase = recipe_of().phases[0]
    rates = [learning_rate(step, 100, phase) for step in range(100)]
    assert max(rates) == pytest.approx(phase.peak_lr)
    assert rates[0] < rates[1]
    assert rates[-1] < 0.05 * phase.peak_lr
