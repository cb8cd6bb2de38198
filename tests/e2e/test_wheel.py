"""What is installed without a checkout is whole: tasks, bundled model, page, and a home of the user's own."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("qwen_aio-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installed_wheel_decides_and_answers_outside_the_checkout(site, tmp_path):
    home = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    environment |= {"PYTHONPATH": str(site), "XDG_DATA_HOME": str(home), "PYTHONSAFEPATH": "1"}
    code = "import qwen_aio, sys; sys.argv[0] = 'qwen-aio'; from qwen_aio.cli.main import main; print(qwen_aio.__file__); main()"
    command = [sys.executable, "-c", code, "run", "快递太慢了,差评!", "--reply", "--golden", "strict"]
    told = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert told.returncode == 0, told.stderr
    assert str(site) in told.stdout
    assert "【😔 LLM 情感判断:负面|" in told.stdout
