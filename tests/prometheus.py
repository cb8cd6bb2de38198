"""A real Prometheus with the files of deploy/, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
CONFIG, RULES = DEPLOY / "prometheus" / "prometheus.yml", DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
OPENER = build_opener(ProxyHandler({}))


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}{ROOT / 'build' / 'prometheus'}")
    assert found is not None, f"no {name}: run scripts/install-prometheus"
    return found


def promtool(*arguments: str | Path) -> str:
    """What it says; fails if it finds a mistake."""
    told = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@contextmanager
def prometheus(folder: Path, replaced: Mapping[str, str], *, port: int) -> Iterator[None]:
    """Run one with deploy/prometheus/prometheus.yml, in which some words are replaced."""
    folder.mkdir()
    config = CONFIG.read_text(encoding="utf-8")
    for documented, word in replaced.items():
        assert documented in config
        config = config.replace(documented, word)
    (folder / CONFIG.name).write_text(config, encoding="utf-8")
    shutil.copy(RULES, folder)
    flags = [f"--config.file={CONFIG.name}", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *flags], cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def query(port: int, expression: str) -> dict[str, float]:
    """What it knows now, by instance or empty name; nothing while it does not answer."""
    try:
        with OPENER.open(f"http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}", timeout=5) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    except OSError:
        return {}
    return {each["metric"].get("instance", ""): float(each["value"][1]) for each in found}
