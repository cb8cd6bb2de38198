import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.core import GoldenCase
from qwen_aio.errors import GoldenMismatch
from qwen_aio.models.find import BUNDLED
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import GoldenBook, check_golden
from tests.fakes import FakeEngine

TASKS = load_tasks(Path("prompts"))


def engine(negative: float = 0.9) -> FakeEngine:
    return FakeEngine(probabilities={"正面": 0.05, "中性": 0.95 - negative, "负面": negative})


def book(tmp_path: Path, *, sha: str = "abc", precision: str = "fp32") -> GoldenBook:
    return GoldenBook(sha, precision, own=tmp_path / "state", shipped=None)


async def shipped_book(tmp_path: Path, *, sha: str = "abc") -> GoldenBook:
    """A book whose records came with the model "abc"."""
    first = book(tmp_path)
    await check_golden(engine(), TASKS, first, policy=None)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for path in first.own.iterdir():
        path.rename(shipped / path.name.removeprefix("abc-"))
    return GoldenBook(sha, "fp32", own=first.own, shipped=shipped)


async def test_the_first_start_records_and_the_second_reproduces(tmp_path):
    first = await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    assert first["sentiment"] == "recorded 12 cases"
    second = await check_golden(engine(), TASKS, book(tmp_path), policy="strict")
    assert second["sentiment"] == "ok 12 cases"


async def test_a_shipped_record_is_strict_and_names_cases(tmp_path):
    shipped = await shipped_book(tmp_path)
    assert (await check_golden(engine(), TASKS, shipped, policy=None))["sentiment"] == "ok 12 cases"
    with pytest.raises(
        GoldenMismatch, match="12 of 12 golden cases of task sentiment changed: '快递太慢了,差评!'"
    ) as told:
        await check_golden(engine(0.85), TASKS, shipped, policy=None)
    assert len(told.value.message) < 1000


async def test_other_weights_under_a_shipped_record_are_refused_even_if_they_answer_alike(tmp_path):
    other = await shipped_book(tmp_path, sha="flipped-bit")
    with pytest.raises(GoldenMismatch, match="not those that shipped"):
        await check_golden(engine(), TASKS, other, policy=None)
    outcome = await check_golden(engine(), TASKS, other, policy="warn")
    assert "not those that shipped" in outcome["sentiment"]


async def test_a_damaged_shipped_record_is_told_as_that(tmp_path):
    shipped = await shipped_book(tmp_path)
    next(shipped.shipped.glob("sentiment*")).write_text('{"model_sha": "abc", "answers": [{"text": "x"}]}')
    with pytest.raises(GoldenMismatch, match="is damaged"):
        await check_golden(engine(), TASKS, shipped, policy=None)


async def test_ones_own_record_only_warns(tmp_path, caplog):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    outcome = await check_golden(engine(0.85), TASKS, book(tmp_path), policy=None)
    assert "negative 0.900 became negative 0.850" in outcome["sentiment"]
    assert "12 of 12 golden cases" in caplog.text


async def test_a_small_wobble_is_no_change(tmp_path):
    await check_golden(engine(0.9), TASKS, book(tmp_path), policy=None)
    outcome = await check_golden(engine(0.89), TASKS, book(tmp_path), policy="strict")
    assert outcome["sentiment"].startswith("ok")


@pytest.mark.parametrize("change", [{"sha": "other"}, {"precision": "int8"}])
async def test_another_model_or_precision_has_its_own_record(tmp_path, change):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    outcome = await check_golden(engine(0.5), TASKS, book(tmp_path, **change), policy="strict")
    assert outcome["sentiment"].startswith("recorded")


@pytest.mark.parametrize("change", [{"golden": (GoldenCase("x"),)}, {"hash": "edited"}])
async def test_other_cases_or_another_template_are_recorded_anew(tmp_path, change):
    shipped = await shipped_book(tmp_path)
    changed = {"sentiment": replace(TASKS["sentiment"], **change)}
    assert (await check_golden(engine(), changed, shipped, policy="strict"))["sentiment"].startswith("recorded")


async def test_another_answer_to_score_is_recorded_anew(tmp_path):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    cases = tuple(replace(case, answer="别的") for case in TASKS["chat"].golden)
    changed = {"chat": replace(TASKS["chat"], golden=cases)}
    assert (await check_golden(engine(), changed, book(tmp_path), policy="strict"))["chat"] == "recorded 6 cases"


async def test_a_model_that_gives_no_numbers_is_refused_under_every_policy_but_off(tmp_path):
    broken = FakeEngine(probabilities=dict.fromkeys(("正面", "中性", "负面"), float("nan")))
    for policy in ("strict", "warn", None):
        with pytest.raises(GoldenMismatch, match="NaN"):
            await check_golden(broken, TASKS, book(tmp_path), policy=policy)
    assert set((await check_golden(broken, TASKS, book(tmp_path), policy="off")).values()) == {"off"}


async def test_off_asks_nothing(tmp_path):
    silent = engine()
    assert await check_golden(silent, TASKS, book(tmp_path), policy="off") == dict.fromkeys(TASKS, "off")
    assert silent.call_ids == []


async def test_a_damaged_or_unwritable_record_of_ones_own_does_not_stop_the_worker(tmp_path, caplog):
    own = tmp_path / "state"
    own.write_text("a file where a folder should be")
    assert (await check_golden(engine(), TASKS, book(tmp_path), policy=None))["sentiment"].startswith("recorded")
    assert "not kept" in caplog.text
    own.unlink()
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    record = next(own.glob("*sentiment*"))
    for damage in ("{", "[]", '{"model_sha": "abc", "answers": [{"text": "x", "label": "y", "probabilities": null}]}'):
        record.write_text(damage)
        outcome = await check_golden(engine(), TASKS, book(tmp_path), policy="strict")
        assert outcome["sentiment"].startswith("recorded")
    assert "damaged" in caplog.text


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_shipped_records_watch_probabilities_large_enough_to_fall(task):
    (path,) = (BUNDLED / "golden").glob(f"{task}-{TASKS[task].hash}-fp32.json")
    answers = json.loads(path.read_text(encoding="utf-8"))["answers"]
    assert len(answers) == len(TASKS[task].golden)
    assert all(max(answer["probabilities"].values()) > 0.1 for answer in answers)
