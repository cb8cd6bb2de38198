"""For all rooms: properties are checked without a clock, since the machines that run them are shared and noisy."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("qwen_aio", deadline=None)
settings.load_profile("qwen_aio")
os.environ.pop("OMP_NUM_THREADS", None)


@pytest.fixture(autouse=True)
def _environment_stays_as_it_is() -> Iterator[None]:
    """A command that runs inside a test sets variables; the next test must not take them for the user's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
