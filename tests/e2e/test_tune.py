"""`qwen-aio tune` with the bundled model: it measures, writes, and leaves no process running."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from qwen_aio.cli import cluster
from qwen_aio.cluster.plan import plan_cluster
from qwen_aio.startup.flags import settings_from
from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.clusters import wait_gone

pytestmark = pytest.mark.timeout(300)
WRITTEN_BEFORE = "# mine\nkv_mb = 64  # enough\nthreads = 7\n"


@contextmanager
def tuning(home: Path, *flags: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen_aio.cli.main", "tune", *flags],
        env=environment | variables | {"QWEN_AIO_HOME": str(home), "TMPDIR": str(home / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "qwen_aio.toml").write_text(WRITTEN_BEFORE)
    return tmp_path


def first_workers(process: subprocess.Popen[str]) -> set[psutil.Process]:
    """All processes that tune has started when the first candidate is measured; waits for that."""
    assert process.stderr is not None
    while "decisions/s" not in process.stderr.readline():
        assert process.poll() is None
    return {child for child in psutil.Process(process.pid).children(recursive=True) if child.pid != process.pid}


def test_a_short_search_writes_what_a_cluster_takes_and_keeps_the_rest(home, monkeypatch):
    with tuning(home, "--seconds", "12") as process:
        children = first_workers(process)
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "workers x threads" in output
    assert "qwen_aio.toml: workers = " in output
    assert ", threads = 7 -> " in output
    wait_gone(children)
    text = (home / "qwen_aio.toml").read_text()
    assert text.startswith("# mine\nkv_mb = 64  # enough\nthreads = ")
    written = tomllib.loads(text)
    assert written.keys() == {"kv_mb", "threads", "workers", "precision", "max_batch_tokens"}
    assert list((home / "tmp").iterdir()) == []
    monkeypatch.setenv("QWEN_AIO_HOME", str(home))
    plan = plan_cluster(settings_from(_typed()))
    assert {worker.threads for worker in plan.workers} == {written["threads"]}
    assert len(plan.workers) == int(written["workers"])


def test_the_precision_of_the_environment_is_asked_for_and_what_wins_is_told(home):
    (home / "qwen_aio.toml").write_text('workers = "60"\nprecision = "int8"\n')
    variables = {"QWEN_AIO_PRECISION": "fp32", "QWEN_AIO_THREADS": "9"}
    with tuning(home, "--seconds", "5", **variables) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "int8" not in errors
    *_, changes, wins = output.splitlines()
    assert "workers = 60 -> " in changes
    assert ", precision = int8 -> fp32, " in changes
    assert wins == "but QWEN_AIO_THREADS is 9, and wins over that"


@pytest.mark.parametrize("number", [signal.SIGINT, *in_campaign(signal.SIGKILL)])
@only_in_campaign
def test_a_signal_ends_everybody_and_nothing_is_written(home, number):
    with tuning(home, "--seconds", "60") as process:
        children = first_workers(process)
        process.send_signal(number)
        output, errors = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in errors
    assert "workers x threads" not in output
    wait_gone(children)
    assert (home / "qwen_aio.toml").read_text() == WRITTEN_BEFORE


@only_in_campaign
def test_why_nothing_could_be_measured_is_a_sentence(home):
    with tuning(home, "--seconds", "60", "--prompts-dir", str(_prompts_that_do_not_fit(home))) as process:
        output, errors = process.communicate()
    assert process.returncode == 1, output
    assert errors.splitlines()[-1].startswith("qwen-aio: nothing could be measured: ")
    assert "the fixed part of the prompt" in errors.splitlines()[-1]
    assert (home / "qwen_aio.toml").read_text() == WRITTEN_BEFORE


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cluster.add_arguments(parser)
    return parser.parse_args([])


def _prompts_that_do_not_fit(home: Path) -> Path:
    """A task whose fixed part alone is longer than the context."""
    folder = home / "prompts" / "long"
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text('kind = "generation"\ntitle = { en = "Long", zh = "长" }\n')
    words = "很长的一句话," * 2000
    (folder / "prompt.j2").write_text(
        f"{{% block system %}}{words}{{% endblock %}}{{% block user %}}{{{{ text }}}}{{% endblock %}}"
        "{% block answer %}{% endblock %}"
    )
    return folder.parent
