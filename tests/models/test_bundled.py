"""What the shipped tasks say about the shipped model holds for the very weights that ship."""

import re
from pathlib import Path

import pytest

from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def shipped():
    return load_tasks(ROOT / "prompts"), model_sha(BUNDLED)


def test_it_is_small_enough_for_the_repository():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*")) <= 40 * MEBIBYTE


def test_the_first_sentence_of_its_answers_is_checked(shipped):
    tasks, sha = shipped
    assert tasks["chat"].opening is not None
    assert tasks["chat"].opening.model == sha


def test_its_safety_decision_has_a_threshold_for_every_danger(shipped):
    tasks, sha = shipped
    policy, calibrations = tasks["safety"].safety, tasks["safety"].calibration
    assert calibrations.keys() == {sha}
    assert calibrations[sha].thresholds.keys() == {"zh", "en"}
    assert all(thresholds.keys() == policy.replies.keys() for thresholds in calibrations[sha].thresholds.values())


def test_its_sentiment_is_calibrated_in_both_languages(shipped):
    tasks, sha = shipped
    calibrations = tasks["sentiment"].calibration
    assert calibrations.keys() == {sha}
    assert calibrations[sha].temperature.keys() == {"zh", "en"}


@pytest.mark.parametrize("page", ["tasks.md", "tasks.zh-CN.md"])
def test_the_documented_example_names_its_hash(shipped, page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert re.findall(r'\{"([0-9a-f]{16})": \{"temperature"', text) == [shipped[1]]
