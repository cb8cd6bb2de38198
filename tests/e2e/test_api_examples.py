"""Every example of the pages about the API runs, as it stands there, against a worker and a balancer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clusters import Cluster, cluster
from tests.test_readme import blocks

PAGES = [Path("docs/api.md"), Path("docs/openai.md")]  # the Chinese ones show the same, see test_readme.py
COMMANDS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
EXAMPLES = [
    *(("sh", block) for page in PAGES for block in blocks(page, "sh")),
    *(("python", "\n".join(blocks(page, "python"))) for page in PAGES),  # later ones use what earlier ones have made
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("examples"), "--model", "bundled", num_workers=2) as running:
        running.wait_until("whole", running.is_whole)
        yield running


@pytest.mark.parametrize(("language", "source"), EXAMPLES)
def test_the_example_runs(service: Cluster, language: str, source: str) -> None:
    ours = {
        "http://127.0.0.1:7860": f"http://127.0.0.1:{service.ports[2]}",
        "http://127.0.0.1:8000": service.url,
    }
    for shown, real in ours.items():
        source = source.replace(shown, real)
    ended = subprocess.run(
        [*COMMANDS[language], source], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    assert '"error"' not in ended.stdout
