"""The page of a server elsewhere, put together: it serves whether or not that one answers, and says which."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from qwen_aio.cli.main import main
from qwen_aio.config import checked_address, load_settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.transport.server import bind
from qwen_aio.ui.page_server import run_page
from tests.fakes import FakeEngine
from tests.served import Worker, served


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://models.example", "https://models.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_a_scheme_a_host_and_a_port(url, address):
    assert checked_address(url, flag="url") == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "localhost",
        "ftp://127.0.0.1",
        "http://",
        "http://:8000",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://host/v1",
        "http://host?x=1",
        "http://host#x",
        "http://me:secret@host",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_before_anything_starts(url):
    with pytest.raises(InvalidSettings, match="--url"):
        checked_address(url, flag="url")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "ui", "--url", "nowhere"], "http://127.0.0.1:8000"),
        (["--url", "http://127.0.0.1:8000"], "--mode ui"),
        (["--mode", "ui", "--host", "0.0.0.0"], "--insecure"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, capsys):
    assert main(arguments, program="app.py", command="serve") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


async def test_health_follows_the_server_behind_and_says_how_old_its_news_is(capsys):
    sock = bind("127.0.0.1", 0)  # where the server will be: taken, so that no other process gets it
    address = f"http://127.0.0.1:{sock.getsockname()[1]}"
    sock.close()
    async with page(address) as ask:
        _, body = await ask.until("/health", 503, "answers")
        assert (body["answers"], body["state"], body["error"]["code"]) == (False, "unavailable", "server_unreachable")
        assert address in body["error"]["message"]
        assert body["age_s"] >= 0
        assert (await ask("/livez"))[0] == 200
        status, body = await ask("/readyz")
        assert (status, body["status"]) == (503, "unavailable")
        assert address not in str(body)
    printed = capsys.readouterr()
    assert f"curl {address}/health" in printed.err
    assert address in printed.out


async def test_health_names_the_model_and_the_worker_behind():
    async with served(Worker(FakeEngine())) as there, page(there.url) as ask:
        _, body = await ask.until("/health", 200)
        assert (body["server"], body["answers"], body["model"], body["worker"]) == (there.url, True, "fake", "qwen-1")
        assert (await ask("/readyz"))[0] == 200


async def test_the_page_itself_offers_no_v1():
    async with served(Worker(FakeEngine())) as there, page(there.url) as ask:
        await ask.until("/health", 200)
        status, body = await ask("/v1/tasks")
        assert (status, body["error"]["code"]) == (404, "unknown_path")


class Asking:
    """A browser of one page, without a window."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def __call__(self, path: str) -> tuple[int, dict]:
        async with self._session.get(self._url + path) as response:
            return response.status, await response.json()

    async def until(self, path: str, status: int, *fields: str) -> tuple[int, dict]:
        """The first reply with this status whose `fields` say something."""
        while True:
            found, body = await self(path)
            if found == status and all(body.get(field) is not None for field in fields):
                return found, body


@asynccontextmanager
async def page(address: str) -> AsyncIterator[Asking]:
    """The page in front of `address`, in this process."""
    sock = bind("127.0.0.1", 0)
    serving = asyncio.ensure_future(
        run_page(load_settings({}), address=address, sock=sock, egress=EgressGuard(), look_s=0.01)
    )
    async with aiohttp.ClientSession() as session:
        try:
            yield Asking(session, f"http://127.0.0.1:{sock.getsockname()[1]}")
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            sock.close()
