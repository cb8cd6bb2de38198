import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.core import GoldenCase
from qwen_aio.errors import GoldenMismatch
from qwen_aio.models.find import BUNDLED
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import check_golden, examine
from qwen_aio.worker.golden_book import MAX_KEPT, GoldenBook
from tests.fakes import FakeEngine

TASKS = load_tasks(Path("prompts"))
SENTIMENT = {"sentiment": TASKS["sentiment"]}
EDITED = {"sentiment": replace(TASKS["sentiment"], hash="edited")}
NEUTRAL = FakeEngine(probabilities={"正面": 0.1, "中性": 0.8, "负面": 0.1})


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
    assert {path.name for path in shipped.iterdir()} == {f"{name}.json" for name in TASKS}
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
    ) as caught:
        await check_golden(engine(0.85), TASKS, shipped, policy=None)
    assert len(caught.value.message) < 1000


async def test_other_weights_under_a_shipped_record_are_refused_even_if_they_answer_alike(tmp_path):
    other = await shipped_book(tmp_path, sha="flipped-bit")
    with pytest.raises(GoldenMismatch, match="not those that shipped"):
        await check_golden(engine(), TASKS, other, policy=None)
    outcome = await check_golden(engine(), TASKS, other, policy="warn")
    assert "not those that shipped" in outcome["sentiment"]


async def test_a_damaged_shipped_record_is_reported_as_that(tmp_path):
    shipped = await shipped_book(tmp_path)
    (shipped.shipped / "sentiment.json").write_text('[{"model_sha": "abc", "answers": [{"text": "x"}]}]')
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


async def test_another_model_has_its_own_record(tmp_path):
    await check_golden(engine(), SENTIMENT, book(tmp_path), policy=None)
    outcome = await check_golden(NEUTRAL, SENTIMENT, book(tmp_path, sha="other"), policy="strict")
    assert outcome["sentiment"] == "recorded 12 cases"


# ---- a task that was changed ----


async def test_flips_of_a_changed_task_are_named_at_every_start_until_they_are_accepted(tmp_path, caplog):
    await check_golden(engine(), SENTIMENT, book(tmp_path), policy=None)
    for _ in range(2):
        caplog.clear()
        message = (await check_golden(NEUTRAL, EDITED, book(tmp_path), policy=None))["sentiment"]
        assert message.startswith(
            "changed: 12 of 12 labels flipped (the task was changed): '快递太慢了,差评!': negative 0.9"
        )
        assert len(message) < 1000
        assert all(repr(case.text[:40]) in caplog.text for case in TASKS["sentiment"].golden)
        with pytest.raises(GoldenMismatch, match=r"12 of 12 labels flipped.*qwen-aio tasks lint sentiment --accept"):
            await check_golden(NEUTRAL, EDITED, book(tmp_path), policy="strict")
    book(tmp_path).keep(EDITED["sentiment"], (await examine(NEUTRAL, EDITED["sentiment"], book(tmp_path))).answers)
    assert (await check_golden(NEUTRAL, EDITED, book(tmp_path), policy="strict"))["sentiment"] == "ok 12 cases"


async def test_flips_against_a_shipped_record_are_named_too_and_do_not_stop_the_owner(tmp_path):
    shipped = await shipped_book(tmp_path)
    message = (await check_golden(NEUTRAL, EDITED, shipped, policy=None))["sentiment"]
    assert message.startswith("changed: 12 of 12 labels flipped")
    with pytest.raises(GoldenMismatch, match="labels flipped"):
        await check_golden(NEUTRAL, EDITED, shipped, policy="strict")
    with pytest.raises(GoldenMismatch, match="not those that shipped"):
        await check_golden(engine(), EDITED, replace(shipped, model_sha="flipped-bit"), policy=None)


async def test_a_change_without_flips_is_said_once_and_recorded(tmp_path):
    shipped = await shipped_book(tmp_path)
    message = (await check_golden(engine(0.7), EDITED, shipped, policy="strict"))["sentiment"]
    assert message == "ok 12 cases: the task was changed, no label flipped"
    assert (await check_golden(engine(0.7), EDITED, shipped, policy="strict"))["sentiment"] == "ok 12 cases"
    with pytest.raises(GoldenMismatch, match="12 of 12 golden cases"):
        await check_golden(engine(0.9), EDITED, shipped, policy="strict")


async def test_a_task_is_held_against_the_version_that_ran_last(tmp_path):
    shipped = await shipped_book(tmp_path)
    shipped.keep(EDITED["sentiment"], (await examine(NEUTRAL, EDITED["sentiment"], shipped)).answers)
    assert (await check_golden(engine(), SENTIMENT, shipped, policy=None))["sentiment"] == "ok 12 cases"
    again = {"sentiment": replace(TASKS["sentiment"], hash="edited again")}
    assert "12 of 12 labels flipped" in (await check_golden(NEUTRAL, again, shipped, policy=None))["sentiment"]
    assert (await check_golden(NEUTRAL, EDITED, shipped, policy="strict"))["sentiment"] == "ok 12 cases"


async def test_only_the_latest_records_are_kept(tmp_path):
    for number in range(MAX_KEPT + 3):
        edited = {"sentiment": replace(TASKS["sentiment"], hash=f"edit {number}")}
        await check_golden(engine(), edited, book(tmp_path), policy=None)
    [path] = (tmp_path / "state").iterdir()
    assert [entry["task_hash"] for entry in json.loads(path.read_text(encoding="utf-8"))] == [
        f"edit {number}" for number in range(3, MAX_KEPT + 3)
    ]


async def test_labels_are_compared_across_precisions(tmp_path):
    await check_golden(engine(), SENTIMENT, book(tmp_path), policy=None)
    int8 = book(tmp_path, precision="int8")
    message = (await check_golden(NEUTRAL, SENTIMENT, int8, policy=None))["sentiment"]
    assert message.startswith("changed: 12 of 12 labels flipped (now int8, before fp32)")
    message = (await check_golden(engine(0.7), SENTIMENT, int8, policy="strict"))["sentiment"]
    assert message == "ok 12 cases: now int8, before fp32, no label flipped"


async def test_cases_that_come_and_go_are_not_taken_for_flips(tmp_path):
    shipped = await shipped_book(tmp_path)
    cases = (*TASKS["sentiment"].golden[2:], GoldenCase("x"))
    other_cases = {"sentiment": replace(TASKS["sentiment"], golden=cases)}
    message = (await check_golden(engine(), other_cases, shipped, policy="strict"))["sentiment"]
    assert message == "ok 11 cases, 1 new, 2 gone"
    assert (await check_golden(engine(), other_cases, shipped, policy="strict"))["sentiment"] == "ok 11 cases"
    with pytest.raises(GoldenMismatch, match="11 of 11 golden cases"):
        await check_golden(engine(0.85), other_cases, shipped, policy="strict")
    edited = {"sentiment": replace(EDITED["sentiment"], golden=(GoldenCase("y"), *cases))}
    message = (await check_golden(NEUTRAL, edited, shipped, policy=None))["sentiment"]
    assert message.startswith("changed: 11 of 12 labels flipped (the task was changed, 1 new)")


async def test_new_cases_of_a_shipped_task_do_not_loosen_the_others(tmp_path):
    shipped = await shipped_book(tmp_path)
    more = {"sentiment": replace(TASKS["sentiment"], golden=(*TASKS["sentiment"].golden, GoldenCase("x")))}
    with pytest.raises(GoldenMismatch, match="12 of 13 golden cases"):
        await check_golden(engine(0.85), more, shipped, policy=None)


async def test_small_wobbles_do_not_add_up(tmp_path):
    for negative in (0.9, 0.885):
        await check_golden(engine(negative), SENTIMENT, book(tmp_path), policy="strict")
    with pytest.raises(GoldenMismatch):
        await check_golden(engine(0.87), SENTIMENT, book(tmp_path), policy="strict")


async def test_another_answer_to_score_is_a_new_case(tmp_path):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    cases = tuple(replace(case, answer="别的") for case in TASKS["chat"].golden)
    changed = {"chat": replace(TASKS["chat"], golden=cases)}
    assert (await check_golden(engine(), changed, book(tmp_path), policy="strict"))["chat"] == (
        "ok 6 cases, 6 new, 6 gone"
    )


async def test_an_answer_that_a_changed_prompt_makes_far_less_likely_is_named(tmp_path):
    def says(probability: float) -> FakeEngine:
        return FakeEngine(probabilities={case.answer: probability for case in TASKS["chat"].golden})

    await check_golden(says(0.8), {"chat": TASKS["chat"]}, book(tmp_path), policy=None)
    edited = {"chat": replace(TASKS["chat"], hash="edited")}
    message = (await check_golden(says(0.1), edited, book(tmp_path), policy=None))["chat"]
    assert message.startswith(
        "changed: 6 of 6 answers flipped (the task was changed): '你好': 你好 0.800 became 你好 0.100"
    )
    assert (await check_golden(says(0.5), edited, book(tmp_path), policy=None))["chat"].startswith("ok 6 cases")


async def test_a_label_that_is_neutral_only_because_nothing_was_clear_says_so(tmp_path):
    await check_golden(engine(), SENTIMENT, book(tmp_path), policy=None)
    unsure = FakeEngine(probabilities={"正面": 0.38, "中性": 0.27, "负面": 0.35})
    message = (await check_golden(unsure, EDITED, book(tmp_path), policy=None))["sentiment"]
    assert "negative 0.900 became neutral (unsure: positive 0.380)" in message


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
    head = '[{"model_sha": "abc", "task_hash": "h", "precision": "fp32", "answers": '
    for damage in (
        "{",
        "[1]",
        "null",
        '[{"model_sha": "abc", "answers": []}]',
        f'{head}[{{"text": "x", "label": "y", "probabilities": null}}]}}]',
        f'{head}[{{"text": "x", "label": "y", "probabilities": {{"z": 1}}}}]}}]',
        f'{head}[{{"text": "x", "label": "y", "probabilities": {{"y": NaN}}}}]}}]',
    ):
        record.write_text(damage)
        outcome = await check_golden(engine(), TASKS, book(tmp_path), policy="strict")
        assert outcome["sentiment"].startswith("recorded")
    assert "damaged" in caplog.text


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_shipped_records_are_of_the_tasks_as_they_are_and_watch_probabilities_large_enough_to_fall(task):
    records = json.loads((BUNDLED / "golden" / f"{task}.json").read_text(encoding="utf-8"))
    assert {(record["task_hash"], record["precision"]) for record in records} == {
        (TASKS[task].hash, "fp32"),
        (TASKS[task].hash, "int8"),
        (TASKS[task].hash, "int8 in 63 levels"),  # by torch, without VNNI
        (TASKS[task].hash, "int8 by avx2"),
        (TASKS[task].hash, "int8 by avx512"),
    }
    for record in records:
        assert len(record["answers"]) == len(TASKS[task].golden)
        assert all(max(answer["probabilities"].values()) > 0.1 for answer in record["answers"])


def test_the_negative_examples_of_the_published_description_are_golden_cases():
    texts = {case.text for case in TASKS["sentiment"].golden}
    assert texts >= {
        "快递太慢了,差评!",
        "这破手机,充一次电只能用3小时,气死我了!",
        "刚收到货,包装完好,但颜色和图片不太一样,有点小失望",
    }
