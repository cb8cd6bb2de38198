"""What a first start computes for the bundled model, computed once for all tests: a comparison takes seconds."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from qwen_aio.engine.native.bindings import VARIABLE


def put_prepared_weights(home: Path) -> None:
    """Into a home that has none; with other tasks or another model, a start computes its own all the same."""
    if not (home / "state" / "weights").exists():
        shutil.copytree(_prepared(os.environ.get(VARIABLE)), home / "state" / "weights")


@cache
def _prepared(_kernel: str | None) -> Path:
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "qwen_aio.cli.prepare_weights"],
        env=os.environ | {"QWEN_AIO_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return home / "state" / "weights"
