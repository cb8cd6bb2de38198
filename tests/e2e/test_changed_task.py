"""An owner changes a task: what that does to the labels is named, by the start and by lint, until it is accepted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import only_in_campaign
from tests.e2e.processes import ROOT, running

NEUTRAL = "今天星期三"
FLIPPED = ("这破手机,充一次电只能用3小时,气死我了!", "刚收到货,包装完好,但颜色和图片不太一样,有点小失望")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "prompts", tmp_path / "prompts"))


def lint(home: Path, prompts: Path, *flags: str) -> tuple[int, str]:
    """The status and the output of `qwen-aio tasks lint sentiment`."""
    command = [sys.executable, "-m", "qwen_aio.cli.main", "tasks", "lint", "sentiment", "--prompts-dir", str(prompts)]
    environment = os.environ | {"QWEN_AIO_HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*command, *flags], capture_output=True, env=environment, encoding="utf-8", timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_an_edit_that_flips_labels_is_named_until_it_is_accepted(tmp_path, prompts):
    home, path = tmp_path / "home", prompts / "sentiment" / "task.toml"
    shipped = path.read_text(encoding="utf-8")
    swapped = {'text = "正面"': 'text = "负面"', 'text = "负面"': 'text = "正面"'}
    path.write_text(re.sub("|".join(swapped), lambda found: swapped[found[0]], shipped), encoding="utf-8")
    worker = ("--mode", "worker", "--id", "qwen-1", "--prompts-dir", str(prompts))
    with running(home, *worker) as app:
        golden = app.get("/health")[1]["golden"]
        log = app.log.read_text(encoding="utf-8")
    assert re.match(r"changed: \d+ of 12 labels flipped \(the task was changed\): ", golden["sentiment"])
    assert golden["chat"] == "ok 6 cases"
    status, told = lint(home, prompts)
    assert status == 1 and "qwen-aio tasks lint sentiment --accept" in told
    for text in FLIPPED:
        assert re.search(rf"'{re.escape(text)}': negative 0\.\d+ became positive", log)
        assert re.search(rf"'{re.escape(text)}': negative 0\.\d+ became positive", told)
    with pytest.raises(AssertionError, match="labels flipped"), running(home, *worker, "--golden", "strict"):
        pass
    assert "accepted" in lint(home, prompts, "--accept")[1]
    with running(home, *worker, "--golden", "strict") as app:
        assert app.get("/health")[1]["golden"]["sentiment"] == "ok 12 cases"
    path.write_text(shipped, encoding="utf-8")
    assert "golden cases of sentiment: ok 12 cases" in lint(home, prompts)[1]


@only_in_campaign
def test_an_added_focus_word_acts_only_where_it_stands(tmp_path, prompts):
    path = prompts / "sentiment" / "task.toml"
    task = path.read_text(encoding="utf-8")
    path.write_text(task.replace('focus_words = ["失望"', 'focus_words = ["不值", "失望"'), encoding="utf-8")

    def scores(*flags: str) -> dict[str, dict[str, float]]:
        with running(tmp_path / "home", "--mode", "worker", "--id", "qwen-1", *flags) as app:
            texts = (NEUTRAL, "The parcel arrives tomorrow.", "这个价不值")
            return {text: app.post("/v1/run", {"text": text, "mode": "sentiment"})[1]["scores"] for text in texts}

    before, after = scores(), scores("--prompts-dir", str(prompts))
    assert before["这个价不值"] != pytest.approx(after["这个价不值"], abs=1e-4)
    for text in (NEUTRAL, "The parcel arrives tomorrow."):
        assert before[text] == pytest.approx(after[text], abs=1e-4)
    status, told = lint(tmp_path / "home", prompts)
    assert status == 0 and "golden cases of sentiment: ok 12 cases" in told
    assert re.search(r"不值:  \[1\] 0\.\d\d  \[2\]", told)
