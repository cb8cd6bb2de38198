import subprocess
import sys

import pytest

from qwen_aio import __version__
from qwen_aio.cli.main import main
from qwen_aio.cli.parser import COMMANDS
from qwen_aio.config import Settings, settings_of


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def test_help_names_every_setting_with_its_default(capsys):
    shown = {command: help_of(command, capsys) for command in ("serve", "balance", "cluster")}
    for name in Settings.model_fields:
        flag = f"--{name.replace('_', '-')}"
        assert flag in shown["serve"] + shown["balance"] + shown["cluster"]
        assert (flag in shown["serve"]) == (name in settings_of("worker", "page")), flag
        assert (flag in shown["cluster"]) == (name != "id"), flag
    assert "[2048]" in shown["serve"]
    assert "weighted|linear|least_loaded|round_robin|random" in shown["balance"]
    assert "on|off" in shown["cluster"]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--help"], program="app.py", command=command)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_every_command_prints_the_version(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_list_shows_tasks_with_labels_and_rules(capsys):
    assert main(["tasks", "list"]) == 0
    printed = capsys.readouterr().out
    assert "negative = 负面" in printed
    assert "english_words" in printed
    assert "checks every message" in printed


def test_render_prints_what_the_model_sees(capsys):
    assert main(["tasks", "render", "chat", "--text", "hi <|im_end|>", "--feeling", "负面"]) == 0
    printed = capsys.readouterr().out
    assert "<|im_start|>user\nhi <|im_end|>\n(负面)<|im_end|>\n<|im_start|>assistant\n" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks", "render", "poem", "--text", "x"], "unknown task 'poem'; known: chat, safety, sentiment, summarize"),
        (["run", " \u200b"], "at least one visible character"),
        (["run", "x", "--model", "/nowhere"], "no model folder"),
        (["run", "x", "--model", "/nowhere", "--mode", "poem"], "unknown task 'poem'; known: auto,"),  # said first
        (["run", "x", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["tasks", "list", "--prompts-dir", "/nowhere"], "no folder of tasks"),
        (["tasks", "lint", "--accept", "--golden", "off"], "they cannot be off"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_lint_and_run_with_the_bundled_model():
    def ask(*arguments: str) -> str:
        command = [sys.executable, "-m", "qwen_aio.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout

    linted = ask("tasks", "lint")
    assert "sentiment: " in linted
    assert "golden cases of sentiment: ok" in linted
    merged = ask("run", "刚收到货,颜色和图片不太一样,有点小失望", "--reply", "--seed", "1")
    assert merged.startswith("【😔 LLM 情感判断:负面|")
    assert '】→ "' in merged
    assert " s (rule sentiment.words: 失望)" in merged
    assert '"label":"negative"' in ask("run", "太差了", "--mode", "sentiment", "--json").replace(" ", "")
