import json
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.core import GoldenCase
from qwen_aio.errors import GoldenMismatch
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import GoldenBook, check_golden
from tests.fakes import FakeEngine

TASKS = load_tasks(Path("prompts"))


def engine(negative: float = 0.9) -> FakeEngine:
    return FakeEngine(probabilities={"正面": 0.05, "中性": 0.95 - negative, "负面": negative})


def book(tmp_path: Path, *, sha: str = "abc", shipped: bool = False, precision: str = "fp32") -> GoldenBook:
    own, beside = tmp_path / "state", tmp_path / "shipped"
    return GoldenBook(sha, precision, own=beside if not shipped else own, shipped=beside if shipped else None)


async def test_the_first_start_records_and_the_second_reproduces(tmp_path):
    first = await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    assert first["sentiment"] == "recorded 12 cases"
    second = await check_golden(engine(), TASKS, book(tmp_path), policy="strict")
    assert second["sentiment"] == "ok 12 cases"


async def test_a_shipped_record_is_strict_and_names_the_case(tmp_path):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    with pytest.raises(GoldenMismatch, match="12 of 12 golden cases of task sentiment changed: '快递太慢了,差评!'"):
        await check_golden(engine(0.85), TASKS, book(tmp_path, shipped=True), policy=None)


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


async def test_other_cases_or_another_template_are_recorded_anew(tmp_path):
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    fewer = {"sentiment": replace(TASKS["sentiment"], golden=(GoldenCase("x"),))}
    assert (await check_golden(engine(), fewer, book(tmp_path), policy="strict"))["sentiment"] == "recorded 1 cases"
    edited = {"sentiment": replace(TASKS["sentiment"], hash="edited")}
    assert (await check_golden(engine(), edited, book(tmp_path), policy="strict"))["sentiment"].startswith("recorded")


async def test_off_asks_nothing(tmp_path):
    silent = engine()
    assert await check_golden(silent, TASKS, book(tmp_path), policy="off") == dict.fromkeys(TASKS, "off")
    assert silent.call_ids == []


async def test_a_damaged_or_unwritable_record_does_not_stop_the_worker(tmp_path, caplog):
    (tmp_path / "shipped").write_text("a file where a folder should be")
    assert (await check_golden(engine(), TASKS, book(tmp_path), policy=None))["sentiment"].startswith("recorded")
    assert "not kept" in caplog.text
    (tmp_path / "shipped").unlink()
    await check_golden(engine(), TASKS, book(tmp_path), policy=None)
    record = next((tmp_path / "shipped").glob("*sentiment*"))
    assert len(json.loads(record.read_text())) == 12
    record.write_text("{")
    assert (await check_golden(engine(), TASKS, book(tmp_path), policy="strict"))["sentiment"].startswith("recorded")
    assert "damaged" in caplog.text
