"""Hashes of a model, mistakes in tasks, and golden records that a start has or has not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.config import Settings
from qwen_aio.doctor.model import HashState, hash_findings, read_hashes
from qwen_aio.doctor.start import Start
from qwen_aio.doctor.tasks import golden_findings, task_findings
from qwen_aio.models import find
from qwen_aio.models.find import BUNDLED
from qwen_aio.models.manifest import Manifest, recorded_files
from qwen_aio.tasks.lint import LintReport
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden_book import GoldenAnswer, GoldenRecord

TASKS = load_tasks(Path("prompts"))
CHAT, SENTIMENT = TASKS["chat"], TASKS["sentiment"]
BOTH = {"chat": CHAT, "sentiment": SENTIMENT}
SHA = "abc"


def record(task=CHAT, *, precision="int8 by avx2", **more) -> GoldenRecord:
    answers = tuple(GoldenAnswer(case.text, case.answer or "x", {}) for case in task.golden)
    return replace(GoldenRecord(SHA, task.hash, precision, answers), **more)


def golden(records, tasks=BOTH):
    return golden_findings(tasks, records, model_sha=SHA)


def test_records_of_this_model_kernel_and_precision_are_right():
    every = {name: record(task) for name, task in BOTH.items()}
    (found,) = golden({"int8 by avx2": every})
    assert (found.mark, found.found) == ("ok", "recorded for this model in int8 by avx2")
    (found,) = golden({"int8 by avx2": every, "fp32": every})
    assert found.mark == "ok" and "; a start in fp32 compares labels alone" in found.found


@pytest.mark.parametrize(
    ("of_chat", "words"),
    [
        (None, "not recorded for this model in int8 by avx2: chat"),
        (record(task_hash="before"), "task chat was changed since it was recorded"),
        (record(precision="fp32"), "task chat is recorded in fp32, not in int8 by avx2"),
        (record(answers=()), "task chat has other golden cases than are recorded"),
    ],
)
def test_a_record_that_is_lacking_is_named_and_why(of_chat, words):
    (found,) = golden({"int8 by avx2": {"chat": of_chat, "sentiment": record(SENTIMENT)}})
    assert found.mark == "note" and found.found.startswith(words) and found.remedy


def test_tasks_are_judged_in_the_precision_with_most_records():
    by_precision = {
        "int8 by avx2": {"chat": None, "sentiment": None},
        "fp32": {"chat": None, "sentiment": record(SENTIMENT, precision="fp32")},
    }
    (found,) = golden(by_precision)
    assert found.found == "not recorded for this model in fp32: chat"
    (found,) = golden({"fp32": dict.fromkeys(BOTH)})
    assert found.found == "not recorded for this model in fp32: chat, sentiment"


def test_records_of_another_model_are_not_compared():
    (found,) = golden({"fp32": {"chat": record(model_sha="other"), "sentiment": None}})
    assert found.mark == "note" and "other model files" in found.found
    assert golden({})[0].mark == "note"


def test_a_mistake_in_a_task_is_a_problem():
    reports = [LintReport("chat", 1, 1, ("no golden cases",), ("a hint",)), LintReport("sentiment", 1, 1, (), ())]
    (found,) = task_findings(BOTH, reports, folder=Path("prompts"))
    assert (found.mark, found.found) == ("problem", "task chat: no golden cases")
    assert task_findings(BOTH, reports[1:], folder=Path("prompts"))[0].found == "2 tasks in prompts: chat, sentiment"


def test_every_wrong_file_is_a_line_up_to_some():
    state = HashState("", [f"{number} is missing" for number in range(7)], "again")
    found = hash_findings(state, folder=BUNDLED)
    assert {each.mark for each in found} == {"problem"} and found[-1].found == "2 more are wrong" and len(found) == 6
    assert hash_findings(HashState(""), folder=BUNDLED)[0].mark == "note"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "home"))
    return shutil.copytree(BUNDLED, tmp_path / "model")


def start_of(model: Path | str) -> Start:
    return Start.of(Settings(model=str(model), prompts_dir=Path("prompts")), is_cluster=False)


def damage(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


def test_a_damaged_file_is_found_by_its_manifest(folder):
    assert read_hashes(start_of(folder)) == HashState("")
    shutil.rmtree(folder / "golden")
    Manifest(source="here", files=recorded_files(folder)).write(folder)
    assert hash_findings(read_hashes(start_of(folder)), folder=folder)[0].found == "5 files are as recorded"
    damage(folder)
    (found,) = hash_findings(read_hashes(start_of(folder)), folder=folder)
    assert found.mark == "problem" and "model.safetensors is wrong: its SHA-256 is" in found.found


def test_a_damaged_bundled_model_is_found_by_the_records_that_shipped(folder, monkeypatch):
    monkeypatch.setattr(find, "BUNDLED", folder)
    assert hash_findings(read_hashes(start_of("bundled")), folder=folder)[0].mark == "ok"
    damage(folder)
    (found,) = hash_findings(read_hashes(start_of("bundled")), folder=folder)
    assert found.mark == "problem" and "as they shipped" in found.found and found.remedy == "install qwen-aio again"
