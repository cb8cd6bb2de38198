"""`qwen-aio doctor`: a line for each check, the exit status, and which start it is about."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_aio.cli.main import main
from qwen_aio.models.find import BUNDLED

NAMES = [
    *("python", "packages", "extras", "clock", "proxies", "variables"),
    *("settings", "model", "engine", "tasks", "kernel", "torch", "hashes", "precision", "golden"),
    *("cores", "memory", "ports", "status", "state"),
]
LINE = re.compile(r"(ok {5}|note {3}|problem)  ([a-z]+) +(.+)")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    for name in [
        each for each in os.environ if each.upper().startswith("QWEN_AIO_") or each.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        found = free.getsockname()[1]
    return str(found)


def asked(capsys, *arguments: str, status: int) -> dict[str, tuple[str, str]]:
    """Check -> mark and text, of checks with one line."""
    capsys.readouterr()
    assert main(["doctor", *arguments]) == status
    *lines, last = capsys.readouterr().out.splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    marks = [each[1].strip() for each in found]
    assert last == f"problems: {marks.count('problem')}, notes: {marks.count('note')}"
    return {each[2]: (each[1].strip(), each[3]) for each in found}


def test_a_sound_machine_has_no_problem_and_torch_is_not_loaded(port):
    code = "import sys; from qwen_aio.cli.main import main; status = main(); print(*sys.modules, file=sys.stderr); exit(status)"
    command = [sys.executable, "-c", code, "doctor", "--port", port, "--json"]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8")
    report = json.loads(ended.stdout)
    assert [each for each in report["findings"] if each["mark"] == "problem"] == []
    assert (ended.returncode, report["problems"]) == (0, 0)
    assert list(dict.fromkeys(each["check"] for each in report["findings"])) == NAMES
    assert not {"torch", "transformers", "gradio"} & set(ended.stderr.split())


def test_it_answers_about_the_start_with_these_flags(capsys, port, tmp_path):
    found = asked(capsys, "--port", port, status=0)
    assert "as qwen-aio serve" in found["settings"][1] and found["ports"] == ("ok", f"free: {port}")
    assert found["hashes"][0] == found["golden"][0] == "ok"
    (tmp_path / "qwen_aio.toml").write_text("threads = 250\n")
    found = asked(capsys, "--workers", "2", "--port", port, "--balancer-port", port, status=1)
    assert found["settings"] == (
        "problem",
        f"page and balancer cannot both have port {port}; change --port or --balancer-port",
    )
    assert set(found) == {*NAMES[:6], "settings"}
    found = asked(capsys, "--port", port, "--golden", "off", "--precision", "fp32", status=0)
    assert found["cores"][0] == "note" and "threads of all: 250" in found["cores"][1]
    assert (
        found["golden"][0] == "note"
        and found["precision"][1] == "precision fp32: asked for"
        and "in fp32" in found["memory"][1]
    )


def test_a_cluster_is_meant_by_a_number_of_workers_alone(capsys, port, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_WORKERS", "dns:workers:7861")  # the balancer's
    assert "as qwen-aio serve" in asked(capsys, "--port", port, status=0)["settings"][1]
    monkeypatch.setenv("QWEN_AIO_WORKERS", "2")
    capsys.readouterr()
    main(["doctor", "--port", port])
    assert "as qwen-aio cluster with 2 workers" in capsys.readouterr().out
    assert "a cluster takes their number" in asked(capsys, "--workers", "qwen-1", status=1)["settings"][1]


@pytest.mark.parametrize(
    ("flags", "check", "words"),
    [
        (["--model", "/nowhere"], "model", "no model folder at /nowhere"),
        (["--precision", "bf16"], "precision", "--precision bf16 goes with --engine transformers"),
        (["--prompts-dir", "/nowhere"], "tasks", "no folder of tasks at /nowhere"),
        (["--host", "0.0.0.0"], "settings", "there are no keys in"),
        (["--port", "99999"], "settings", "port: Input should be less than"),
    ],
)
def test_what_would_end_a_start_is_a_problem(capsys, port, flags, check, words):
    mark, text = asked(capsys, "--port", port, *flags, status=1)[check]
    assert mark == "problem" and words in text


def test_a_kernel_that_is_not_there_is_a_problem(capsys, port, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_KERNEL", "avx3")
    found = asked(capsys, "--port", port, status=1)
    assert found["kernel"][0] == "problem" and "avx3" in found["kernel"][1]
    assert found["torch"] == ("note", "not checked, because of kernel")


def test_a_damaged_model_and_a_misspelt_variable_are_found(capsys, port, monkeypatch):
    mine = Path(os.environ["QWEN_AIO_HOME"]) / "models" / "mine"
    assert main(["models", "import", str(BUNDLED), "--name", "mine"]) == 0
    with (mine / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    monkeypatch.setenv("QWEN_AIO_PROT", "1")
    found = asked(capsys, "--port", port, "--model", str(mine), status=1)
    assert found["hashes"][0] == "problem" and "tokenizer.json is wrong" in found["hashes"][1]
    assert found["variables"] == ("problem", "nothing reads QWEN_AIO_PROT; did you mean QWEN_AIO_PORT?")
    assert found["golden"][0] == "note"


def test_a_port_of_somebody_else_is_a_problem(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        taken.settimeout(0)
        found = asked(capsys, "--port", port, status=1)
    assert found["ports"][0] == "problem" and "it is in use" in found["ports"][1]


def test_lines_are_in_the_operators_language_and_json_is_english(capsys, port, monkeypatch, tmp_path):
    model = tmp_path / "中文"
    shutil.copytree(BUNDLED, model)
    monkeypatch.setenv("QWEN_AIO_PROT", "1")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    flags = ["--port", port, "--workers", "2", "--threads", "250", "--golden", "off", "--model", str(model)]
    monkeypatch.setenv("QWEN_AIO_LANG", "zh")
    assert main(["doctor", *flags]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"问题 [1-9] 个，提示 [1-9] 个", last)
    of_check = {}
    for line in lines:
        mark, check, found = re.fullmatch(r"(正常|提示|问题)  ([a-z]+) +(.+)", line).groups()
        of_check[check] = (mark, found)
        assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", found), line
    assert list(of_check) == NAMES
    assert of_check["variables"] == ("问题", "没有任何程序读取 QWEN_AIO_PROT；是否应为 QWEN_AIO_PORT？")
    assert of_check["golden"] == ("提示", "已关闭：模型或任务损坏时无法察觉；请去掉 --golden off")
    assert of_check["settings"][1].startswith("如同 qwen-aio cluster，2 个实例；主目录 ")
    assert main(["doctor", *flags, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (unread,) = [each for each in report["findings"] if each["check"] == "variables"]
    assert (unread["mark"], unread["found"]) == ("problem", "nothing reads QWEN_AIO_PROT")


def test_a_flag_that_is_none_is_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--colour"])
    assert ended.value.code == 2


def test_escape_codes_in_a_path_are_written_out(capsys, port, tmp_path):
    strange = tmp_path / "a\x1b[31mb"
    shutil.copytree(BUNDLED, strange)
    assert "\\x1b[31mb" in asked(capsys, "--port", port, "--model", str(strange), status=0)["model"][1]
