"""Random batches with the sanitizers of GCC: memory, undefined behaviour, races between threads."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.campaign import in_campaign
from tests.e2e.processes import ROOT

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.mark.parametrize(("seconds", "seed"), [(5, 1), *in_campaign((120, 2), (120, 3))])
def test_sanitizers_find_nothing_and_bits_are_those_of_each_sequence_alone(seconds, seed):
    command = [str(ROOT / "scripts/sanitize-native"), str(seconds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
