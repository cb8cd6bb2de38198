"""What the page knows of the server that it asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from qwen_aio.core import Capabilities, ContextLimits, Request
from qwen_aio.errors import NoWorker, QwenAioError, ServerUnreachable
from qwen_aio.models.find import find_model
from qwen_aio.result import Event
from qwen_aio.ui.remote_service import DEMONSTRATION, RemoteService
from tests.fakes import FakeClock
from tests.ui.fakes import TASKS, FakeService, both

URL = "http://there:8000"
CAPABILITIES = Capabilities(TASKS, ContextLimits(2048, 1024), "tiny", "qwen-1")


class FakeServer:
    """Answers with `capabilities`, or raises the error in their place."""

    def __init__(self, capabilities: Capabilities | QwenAioError) -> None:
        self.current = capabilities
        self.service = FakeService(lambda _: both("yes"))

    async def capabilities(self) -> Capabilities:
        if isinstance(self.current, QwenAioError):
            raise self.current
        return self.current

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        return self.service.stream(request)


def remote_service(
    capabilities: Capabilities | QwenAioError, clock: FakeClock | None = None
) -> tuple[RemoteService, FakeServer]:
    server = FakeServer(capabilities)
    return RemoteService(server, url=URL, version="1.0", clock=clock or FakeClock()), server


async def test_nothing_is_claimed_before_it_was_asked() -> None:
    page, _ = remote_service(CAPABILITIES)
    assert page.failure is not None and page.failure.code == "not_ready"
    assert page.about().model is None
    assert page.record() == {"server": URL, "answers": None, "age_s": None, "model": None, "worker": None}


async def test_tasks_and_streams_come_from_the_server() -> None:
    page, server = remote_service(CAPABILITIES)
    assert await page.capabilities() == CAPABILITIES
    assert [event async for event in page.stream(Request("hi"))] == both("yes")
    assert server.service.requests == [Request("hi")]


async def test_a_visitors_question_tells_as_much_as_a_look() -> None:
    page, _ = remote_service(CAPABILITIES)
    await page.capabilities()
    assert page.failure is None
    assert (page.about().model, page.about().worker, page.about().url) == ("tiny", "qwen-1", URL)


@pytest.mark.parametrize("failure", [ServerUnreachable("nobody"), NoWorker("none")])
async def test_a_failure_is_raised_and_remembered(failure: QwenAioError) -> None:
    page, server = remote_service(CAPABILITIES)
    await page.look()
    server.current = failure
    with pytest.raises(type(failure)):
        await page.capabilities()
    assert page.failure is failure
    assert page.about().model is None and page.record()["answers"] is False
    server.current = CAPABILITIES
    await page.look()
    assert page.failure is None and page.about().model == "tiny"


async def test_the_age_of_the_last_answer_is_shown() -> None:
    clock = FakeClock()
    page, _ = remote_service(CAPABILITIES, clock)
    await page.look()
    clock.advance(4.25)
    assert page.record() == {"server": URL, "answers": True, "age_s": 4.2, "model": "tiny", "worker": "qwen-1"}


async def test_the_bundled_model_is_known_by_its_name(tmp_path) -> None:
    assert find_model("bundled", home=tmp_path).name == DEMONSTRATION
    page, _ = remote_service(Capabilities(TASKS, ContextLimits(2048, 1024), DEMONSTRATION, "qwen-1"))
    await page.look()
    assert page.about().is_bundled
