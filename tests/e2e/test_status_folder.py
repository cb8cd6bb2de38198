"""A clock is set, or the status folder is deleted under running workers and used by others: who is ready is served."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from qwen_aio.status.file import StatusFile
from qwen_aio.status.record import WorkerStatus
from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.processes import App, free_port, start

pytestmark = pytest.mark.timeout(300)
ID = "qwen-1"
QUESTION = {"text": "快递太慢了,差评!", "mode": "sentiment"}
HOURS = 3600.0


class Cluster:
    """A balancer and its one worker, in a status folder that another such pair may use as well."""

    def __init__(self, home: Path, name: str) -> None:
        self._home = home / name
        self._flags = ("--status-dir", str(home / "shared"))
        self._port, port = free_port(), free_port()
        flags = ("--workers", ID, *self._flags)
        self.balancer = start(self._home, *flags, port=port, wait=False, program="balancer.py")
        self.balancer.url = f"http://127.0.0.1:{port}"
        self.worker: App | None = None

    def start_worker(self) -> App:
        flags = ("--mode", "worker", "--id", ID, "--threads", "1", *self._flags)
        self.worker = start(self._home, *flags, port=self._port, wait=False)
        return self.worker

    def row(self) -> dict[str, Any]:
        try:
            return self.balancer.get("/status")[1]["workers"][0]
        except (URLError, OSError):
            return {"health": "the balancer is not there yet"}

    def changes(self) -> list[str]:
        return [event["change"] for event in self.balancer.get("/history")[1]["events"]]

    def until_down(self) -> None:
        self.balancer.wait_until("down", lambda: self.row()["health"] == "down")

    def until_it_has(self, *workers: App) -> None:
        pids = {worker.process.pid for worker in workers}
        self.balancer.wait_until("served", lambda: (row := self.row())["health"] == "up" and row["pid"] in pids)
        assert self.balancer.post("/v1/run", QUESTION)[1]["label"] == "negative"

    def kill(self) -> None:
        for app in filter(None, (self.worker, self.balancer)):
            app.process.kill()
            app.process.wait()


@contextmanager
def cluster(home: Path, name: str) -> Iterator[Cluster]:
    made = Cluster(home, name)
    try:
        yield made
    finally:
        made.kill()


def put_record(folder: Path, **fields: Any) -> None:
    """What a worker of long ago left behind."""
    identity = {"id": ID, "url": "http://127.0.0.1:1", "pid": 1, "start_time": 1.0, "generation": 7, "seq": 9}
    StatusFile(folder / "status.json", lock_timeout_s=5).write(WorkerStatus(**identity | {"state": "ready"} | fields))


@pytest.mark.parametrize("generation", [7, *in_campaign(0)])
@only_in_campaign
def test_two_clusters_use_a_folder_that_was_deleted_and_each_is_served_to_the_end(tmp_path, generation):
    """With 7 the first worker has a higher generation than the second, which is the later one."""
    folder = tmp_path / "shared"
    put_record(folder, generation=generation)
    with cluster(tmp_path, "first") as first:
        worker = first.start_worker()
        first.until_it_has(worker)
        assert first.row()["generation"] == generation + 1
        shutil.rmtree(folder)
        with cluster(tmp_path, "second") as second:
            other = second.start_worker()
            other.wait_until("ready", other.is_ready)
            second.until_it_has(worker, other)
            first.until_it_has(worker)
            assert other.stop() == 0
            second.until_it_has(worker)
            first.until_it_has(worker)


def test_a_worker_is_taken_back_although_its_record_looks_older_than_the_last_one(tmp_path):
    """The last one was started with a clock eight hours ahead, and the folder was deleted since."""
    folder = tmp_path / "shared"
    put_record(folder, state="draining", start_time=time.time() + 8 * HOURS)
    with cluster(tmp_path, "only") as only:
        only.until_down()
        shutil.rmtree(folder)
        worker = only.start_worker()
        only.until_it_has(worker)
        assert worker.stop() == 0
        only.until_down()
        shutil.rmtree(folder)
        only.until_it_has(only.start_worker())
        assert only.row()["generation"] == 1


@pytest.mark.parametrize("state", ["failed", *in_campaign("draining")])
def test_a_ready_worker_is_served_whatever_is_put_into_the_file(tmp_path, state):
    path = tmp_path / "shared" / "status.json"
    with cluster(tmp_path, "only") as only:
        worker = only.start_worker()
        only.until_it_has(worker)
        table = json.loads(path.read_text())
        table["workers"][ID] |= {"state": state, "seq": 10**6}

        def is_heard() -> bool:
            """The worker's next record may be in its place before it is read."""
            path.with_name("edited").write_text(json.dumps(table))
            path.with_name("edited").replace(path)
            return "up -> down" in only.changes()

        only.balancer.wait_until("heard", is_heard)
        only.until_it_has(worker)
