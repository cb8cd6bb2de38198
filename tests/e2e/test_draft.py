"""`qwen-aio tasks draft` as a user runs it, with the bundled model and a prompts folder of their own."""

import json
import shutil
import subprocess
import sys

PROGRAM = (sys.executable, "-m", "qwen_aio.cli.main")
RAIN = [(f"第{n}次了，下雨打不到车", "天气") for n in range(20)]
FOOD = [(f"第{n}次了，这家的面真好吃", "吃的") for n in range(20)]


def ran(prompts, *arguments):
    flags = ("--model", "bundled", "--prompts-dir", str(prompts), "--golden", "off")
    command = (*PROGRAM, *map(str, arguments), *flags)
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_a_drafted_task_says_how_good_it_is_and_can_be_asked(tmp_path):
    prompts = tmp_path / "prompts"
    shutil.copytree("prompts", prompts)
    examples = tmp_path / "rows.tsv"
    examples.write_text("said\tabout\n" + "".join(f"{text}\t{label}\n" for text, label in RAIN + FOOD))
    columns = ("--examples", examples, "--text-column", "said", "--label-column", "about")
    done = ran(prompts, "tasks", "draft", "topic", *columns)
    assert done.returncode == 0, done.stderr
    assert "12 rows are the pool of examples, 28 are judged" in done.stdout
    assert "naive Bayes          right 1.000" in done.stdout
    computed = {line.rpartition(" ")[2] for line in done.stdout.splitlines() if "a request computes" in line}
    assert len(computed) == 1  # examples cost a request nothing
    asked = ran(prompts, "run", "面很好吃", "--mode", "topic", "--json")
    assert json.loads(asked.stdout)["emotion"] in ("天气", "吃的"), asked.stderr
    assert {path.name for path in (prompts / "topic").iterdir()} >= {"task.toml", "prompt.j2"}
    again = ran(prompts, "tasks", "draft", "topic", *columns)
    assert again.returncode == 1 and "exists; choose another name" in again.stderr
