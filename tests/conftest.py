"""For all rooms: properties are checked without a clock, since the machines that run them are shared and noisy."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from qwen_aio.startup.event_loop import new_event_loop

ROOMS_OF_SERVERS = {"balancer", "serving", "ui", "worker"}

settings.register_profile("qwen_aio", deadline=None)
settings.load_profile("qwen_aio")
os.environ.pop("OMP_NUM_THREADS", None)
# A command that runs inside a test would guard this process, and all tests after it, for good. Real processes of
# tests/e2e do not inherit it.
os.environ["QWEN_AIO_OFFLINE"] = "false"
os.environ.pop("QWEN_AIO_LANG", None)
os.environ["LC_ALL"] = "C.UTF-8"  # English, whatever the locale of the machine


@pytest.fixture(autouse=True)
def _environment_stays_as_it_is() -> Iterator[None]:
    """A command that runs inside a test sets variables; the next test must not take them for the user's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What runs in a server is tested on the event loop of servers, everything else on asyncio's own."""
    is_of_servers = item.path.relative_to(Path(__file__).parent).parts[0] in ROOMS_OF_SERVERS
    return {"product": new_event_loop if is_of_servers else asyncio.new_event_loop}
