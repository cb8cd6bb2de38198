"""`qwen-aio calibrate` as a user runs it, with the bundled model and prompts of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-m", "qwen_aio.cli.main")
OTHER_MODEL = {"f" * 16: {"temperature": {"zh": 3.0}}}
CLEAR = {
    "positive": ("东西很好，下次还来", "非常满意，推荐购买"),
    "negative": ("质量太差了，再也不买", "客服态度恶劣，差评"),
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine") / "prompts"
    shutil.copytree("prompts", folder)
    path = folder / "sentiment" / "calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | OTHER_MODEL), encoding="utf-8")
    return folder


def ran(prompts, command, *arguments):
    flags = (*map(str, arguments), "--model", "bundled", "--prompts-dir", str(prompts), "--golden", "off")
    return subprocess.run((*PROGRAM, command, *flags), capture_output=True, text=True, timeout=110, check=False)


def file_of(prompts, rows) -> Path:
    path = prompts.parent / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return path


def rows(count, *, wrong):
    """Clear opinions; of ten rows in a row, `wrong` have the other label."""
    others = {"positive": "negative", "negative": "positive"}
    for number in range(count):
        label = ("positive", "negative")[number % 2]
        text = f"{CLEAR[label][number // 2 % 2]}，第{number}次了"
        yield text, others[label] if number * 7 % 10 < wrong else label


def decided(prompts):
    done = ran(prompts, "run", "东西很好，下次还来", "--mode", "sentiment", "--json")
    return json.loads(done.stdout)


def test_labels_that_are_less_sure_than_the_model_make_it_less_sure(prompts):
    before = decided(prompts)
    done = ran(prompts, "calibrate", file_of(prompts, rows(100, wrong=3)))
    assert done.returncode == 0, done.stderr
    assert "<- taken" in done.stdout and "no prior is fitted: neutral would need 10 rows" in done.stdout
    written = json.loads((prompts / "sentiment" / "calibration.json").read_text(encoding="utf-8"))
    assert OTHER_MODEL.items() <= written.items() and len(written) == 2
    after = decided(prompts)
    assert after["calibrated"] and after["label"] == before["label"] == "positive"
    assert after["probability"] < 0.9 < before["probability"]
    again = ran(prompts, "calibrate", file_of(prompts, rows(100, wrong=3)))
    assert again.returncode == 1 and "nothing was written" in again.stderr


def test_thresholds_of_safety_are_not_moved_under_their_probabilities(prompts):
    done = ran(prompts, "calibrate", file_of(prompts, [("你好", "ok")] * 60), "--task", "safety")
    assert done.returncode == 1 and "safety has thresholds for probabilities as the model says them" in done.stderr


def test_too_few_rows_are_refused_with_what_is_needed(prompts):
    before = (prompts / "sentiment" / "calibration.json").read_bytes()
    done = ran(prompts, "calibrate", file_of(prompts, rows(20, wrong=0)))
    assert done.returncode == 1
    assert "20 labelled rows can be judged; a calibration needs 50 at least" in done.stderr
    assert (prompts / "sentiment" / "calibration.json").read_bytes() == before
