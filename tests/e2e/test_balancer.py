"""Three real workers with the bundled model behind a real balancer, and what is done to them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Request, SamplingWish
from qwen_aio.result import Done, Explained, TextDelta
from tests.e2e.processes import App, free_port, start

IDS = ("qwen-1", "qwen-2", "qwen-3")
GREEDY = SamplingWish(temperature=0.0, max_tokens=48)
TEXTS = ("快递太慢了,差评!", "讲个故事", "你好", "客服态度超好,必须点赞!", "What can you do?", "今天有点累")


@dataclass
class Cluster:
    """Workers by id, and the balancer before them."""

    home: Path
    workers: dict[str, App] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    balancer: App = None  # type: ignore[assignment]  # set before anybody sees it

    def start_worker(self, worker_id: str) -> None:
        flags = ("--mode", "worker", "--id", worker_id, "--threads", "1")
        self.workers[worker_id] = start(self.home, *flags, port=self.ports[worker_id], wait=False)

    def table(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.balancer.get("/status")[1]["workers"]}

    def until_ready(self, count: int) -> None:
        self.balancer.wait_until(f"{count} ready", lambda: self.balancer.get("/status")[1]["ready"] == count)

    def assert_quiet(self) -> None:
        shown = self.balancer.get("/status")[1]
        assert (shown["waiting"], shown["in_flight"]) == (0, 0)
        assert {row["in_flight"] for row in shown["workers"]} == {0}


@contextmanager
def cluster(home: Path) -> Iterator[Cluster]:
    made = Cluster(home, ports={worker_id: free_port() for worker_id in IDS})
    try:
        for worker_id in IDS:
            made.start_worker(worker_id)
        made.balancer = start(home, "--workers", ",".join(IDS), program="balancer.py")
        made.until_ready(3)
        yield made
    finally:
        for app in (*made.workers.values(), *([made.balancer] if made.balancer else ())):
            app.process.send_signal(signal.SIGCONT)
            app.process.kill()
            app.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def service(running: Cluster) -> Iterator[Cluster]:
    """Three ready workers before the test, and nothing left over after it."""
    for worker_id, app in running.workers.items():
        if app.process.poll() is not None:
            running.start_worker(worker_id)
    running.until_ready(3)
    yield running
    running.balancer.wait_until("quiet", lambda: running.balancer.get("/status")[1]["in_flight"] == 0)
    running.assert_quiet()


async def ask(client: AsyncClient, text: str, **more: Any) -> str:
    """The whole streamed text; every token's index is one more than the last, and the end is the end."""
    tokens: list[TextDelta] = []
    last = None
    async with aclosing(client.stream(Request(text, mode="chat", sampling=GREEDY, **more))) as events:
        async for last in events:
            if isinstance(last, TextDelta):
                tokens.append(last)
    assert isinstance(last, Done)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    text = "".join(token.text for token in tokens)
    assert last.result.answer.text == text
    return text


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await check():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def load(client: AsyncClient, *, streams: int) -> AsyncIterator[tuple[list[str], asyncio.Event]]:
    """So many clients ask one after another until the event is set; afterwards the list holds all texts in TEXTS order."""
    stop, heard = asyncio.Event(), []

    async def one(number: int) -> None:
        while not stop.is_set():
            text = TEXTS[number % len(TEXTS)]
            heard.append((text, await ask(client, text)))
            number += 1

    tasks = [asyncio.create_task(one(number)) for number in range(streams)]
    try:
        yield heard, stop
        stop.set()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def undisturbed(client: AsyncClient) -> dict[str, str]:
    return {text: await ask(client, text) for text in TEXTS}


async def test_an_explanation_is_the_same_through_the_balancer_and_comes_before_the_end(service: Cluster) -> None:
    text = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"
    request = Request(text, mode="sentiment", reply=True, sampling=GREEDY, explain=True)
    said = []
    for url in (service.balancer.url, f"http://127.0.0.1:{service.ports['qwen-1']}"):
        async with AsyncClient(url) as client, aclosing(client.stream(request)) as events:
            *_, explained, done = [event async for event in events]
        assert isinstance(explained, Explained) and isinstance(done, Done)
        assert done.result.decision.explanation == explained.explanation
        phrases = sorted(explained.explanation.phrases, key=lambda phrase: phrase.start)
        assert "".join(phrase.text for phrase in phrases) == text
        assert "含对比“但”" in done.result.decision.reason
        said.append([(phrase.text, pytest.approx(phrase.weight, abs=0.01)) for phrase in phrases])
    assert [(text, weight.expected) for text, weight in said[0]] == said[1]


async def test_whichever_worker_answers_greedy_text_is_the_same(service: Cluster):
    async with AsyncClient(service.balancer.url) as client:
        expected = await undisturbed(client)
        for app in service.workers.values():
            async with AsyncClient(app.url or f"http://127.0.0.1:{service.ports['qwen-1']}") as direct:
                assert await ask(direct, "你好") == expected["你好"]


async def test_a_decision_and_its_reply_through_the_balancer(service: Cluster):
    status, body = service.balancer.post("/v1/run", {"text": "颜色不一样,有点小失望", "reply": True})
    assert status == 200
    assert (body["label"], body["mode"]) == ("negative", "sentiment")
    assert {body["worker"], body["reply"]["worker"]} <= set(IDS)
    assert body["reply"]["text"]
    tasks = service.balancer.get("/v1/tasks")[1]
    assert {task["name"] for task in tasks["tasks"]} == {"sentiment", "chat", "safety", "summarize"}


async def test_kill_9_of_a_worker_under_load_is_noticed_by_nobody(service: Cluster):
    async with AsyncClient(service.balancer.url) as client:
        expected = await undisturbed(client)
        async with load(client, streams=14) as (heard, _):

            async def is_streaming() -> bool:
                return (await asyncio.to_thread(service.table))["qwen-2"]["in_flight"] >= 3 and len(heard) > 10

            await until(is_streaming)
            service.workers["qwen-2"].process.kill()
            count = len(heard)

            async def has_moved_on() -> bool:
                return len(heard) >= count + 60

            await until(has_moved_on)
        wrong = [(text, told) for text, told in heard if told != expected[text]]
        assert wrong == []
        assert (await asyncio.to_thread(service.table))["qwen-2"]["health"] == "down"


async def test_a_stopped_worker_loses_its_traffic_and_nobody_loses_an_answer(service: Cluster):
    async with AsyncClient(service.balancer.url) as client:
        expected = await undisturbed(client)
        async with load(client, streams=6) as (heard, _):

            async def has_work() -> bool:
                return (await asyncio.to_thread(service.table))["qwen-1"]["in_flight"] >= 1

            await until(has_work)
            service.workers["qwen-1"].process.send_signal(signal.SIGSTOP)

            async def is_left() -> bool:
                row = (await asyncio.to_thread(service.table))["qwen-1"]
                return row["health"] in ("suspect", "down") and row["in_flight"] == 0

            await until(is_left)
        assert all(told == expected[text] for text, told in heard)
        service.workers["qwen-1"].process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(service.until_ready, 3)


async def reported(service: Cluster, worker: str) -> dict:
    """Its row, with a report that was made after now."""
    asked = time.monotonic()

    async def is_new() -> bool:
        return (await asyncio.to_thread(service.table))[worker]["status_age_s"] < time.monotonic() - asked

    await until(is_new)
    return (await asyncio.to_thread(service.table))[worker]


async def test_a_worker_taken_offline_under_load_gets_no_more_until_it_is_brought_back(service: Cluster):
    async with AsyncClient(service.balancer.url) as client, load(client, streams=8) as (heard, _):

        async def has_work() -> bool:
            return (await asyncio.to_thread(service.table))["qwen-3"]["in_flight"] >= 1

        await until(has_work)
        status, _ = await asyncio.to_thread(service.balancer.post, "/admin/workers/qwen-3", {"state": "maint"})
        assert status == 200

        async def is_idle() -> bool:
            return (await asyncio.to_thread(service.table))["qwen-3"]["in_flight"] == 0

        await until(is_idle)
        done = (await reported(service, "qwen-3"))["completed"]
        count = len(heard)

        async def others_go_on() -> bool:
            return len(heard) >= count + 20

        await until(others_go_on)
        row = await reported(service, "qwen-3")
        assert row["in_flight"] == 0
        assert row["completed"] == done
        await asyncio.to_thread(service.balancer.post, "/admin/workers/qwen-3", {"state": "ready"})
        await until(has_work)


async def test_the_last_worker_goes_offline_only_if_that_is_meant(service: Cluster):
    try:
        for worker_id in ("qwen-1", "qwen-2"):
            assert service.balancer.post(f"/admin/workers/{worker_id}", {"state": "maint"})[0] == 200
        status, body = service.balancer.post("/admin/workers/qwen-3", {"state": "maint"})
        assert (status, body["error"]["code"]) == (409, "last_worker")
        assert service.balancer.post("/admin/workers/qwen-3", {"state": "maint", "force": True})[0] == 200
        assert service.balancer.get("/health")[0] == 503
    finally:
        for worker_id in IDS:
            service.balancer.post(f"/admin/workers/{worker_id}", {"state": "ready"})


async def test_two_bursts_of_a_hundred_at_once_are_all_answered(service: Cluster):
    async with AsyncClient(service.balancer.url) as client:

        async def one(number: int) -> str:
            request = Request(TEXTS[number % len(TEXTS)], mode="sentiment" if number % 3 else "chat", sampling=GREEDY)
            return (await client.run(request)).request_id

        for _ in range(2):
            assert len(set(await asyncio.gather(*map(one, range(100))))) == 100


def test_offline_survives_a_restart_of_the_balancer_and_the_workers_do_not_notice(service: Cluster):
    assert service.balancer.post("/admin/workers/qwen-2", {"state": "maint"})[0] == 200
    pids = {worker_id: row["pid"] for worker_id, row in service.table().items()}
    port = int(service.balancer.url.rpartition(":")[2])
    assert service.balancer.stop() == 0
    service.balancer = start(service.home, "--workers", ",".join(IDS), port=port, program="balancer.py")
    service.until_ready(2)
    assert service.table()["qwen-2"]["admin"] == "maint"
    assert {worker_id: row["pid"] for worker_id, row in service.table().items()} == pids
    service.balancer.post("/admin/workers/qwen-2", {"state": "ready"})
    service.until_ready(3)


def test_a_second_balancer_on_the_same_folder_or_port_says_why_it_will_not(service: Cluster):
    port = int(service.balancer.url.rpartition(":")[2])
    for flags in ({"port": port}, {}):
        second = start(service.home, wait=False, program="balancer.py", **flags)
        assert second.process.wait(timeout=30) == 1
        told = second.log.read_text()
        assert "another balancer" in told or "in use" in told
        assert "Traceback" not in told


@pytest.mark.parametrize(
    "content", [b"", b"null", b"{", b"[" * 100_000, b"x" * 2_000_000, None], ids=lambda content: str(content)[:10]
)
def test_a_damaged_status_file_disturbs_nobody(service: Cluster, content: bytes | None):
    path = service.home / "status" / "status.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for _ in range(20):
        assert service.balancer.post("/v1/run", {"text": "hi", "mode": "sentiment"})[0] == 200
    service.until_ready(3)
