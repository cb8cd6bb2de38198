"""For all rooms: properties are checked without a clock, since the machines that run them are shared and noisy."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("qwen_aio", deadline=None)
settings.load_profile("qwen_aio")
os.environ.pop("OMP_NUM_THREADS", None)


@pytest.fixture(autouse=True)
def _threads_stay_inside() -> Iterator[None]:
    """A command that runs inside a test sets the variable; what the next test starts would take it for the user's."""
    yield
    os.environ.pop("OMP_NUM_THREADS", None)
