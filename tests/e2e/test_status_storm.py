"""Many processes write status.json, many read it, and some are killed in the middle of it.

    pytest tests/e2e/test_status_storm.py                                                # eight seconds
    QWEN_AIO_CAMPAIGN=1 pytest --log-cli-level=INFO tests/e2e/test_status_storm.py   # a minute, at least 60,000 reads

Every writer keeps a ledger of what it has been told is written; nothing in a ledger may be missing from the file.
"""

import json
import logging
import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from qwen_aio.errors import StatusUnreadable
from qwen_aio.status.file import StatusFile, read_statuses, utc_time
from qwen_aio.status.record import WorkerStatus
from tests.campaign import CAMPAIGN

DURATION_S = 60.0 if CAMPAIGN else 8.0
MIN_READS = 60_000 if CAMPAIGN else 1_000
NUM_WRITERS, NUM_READERS = 8, 4
WRITE_PERIOD_S = 0.1
KILL_PERIOD_S = 0.4
LOCK_TIMEOUT_S = 10.0  # generous: a machine that is busy with something else is no failure of the file

logger = logging.getLogger(__name__)
spawning = multiprocessing.get_context("spawn")  # fresh processes, which share no memory


def test_no_read_fails_and_no_update_is_lost_while_writers_are_killed(tmp_path: Path) -> None:
    storm = Storm(tmp_path)
    try:
        storm.rage(DURATION_S)
        storm.calm()
        reports = storm.reports()
        final = read_statuses(storm.path)
    finally:
        storm.end()

    num_reads = sum(report["reads"] for report in reports)
    logger.info(
        "status storm: reads=%d kills=%d lives=%d",
        num_reads,
        storm.num_kills,
        sum(s.generation for s in final.values()),
    )
    assert num_reads >= MIN_READS
    assert [report["errors"] for report in reports] == [[]] * NUM_READERS
    assert storm.num_kills >= 5
    assert set(final) == {f"qwen-{number}" for number in range(NUM_WRITERS)}
    for worker_id, status in final.items():
        assert [status.generation, status.seq] == last_line(ledger_path(tmp_path, worker_id))


class Storm:
    """The processes of one run. Kills only what it started."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "status" / "status.json"
        self.num_kills = 0
        self._folder = folder
        self._stop = folder / "stop"
        self._random = random.Random(7)
        self._writers = {f"qwen-{number}": self._start_writer(f"qwen-{number}") for number in range(NUM_WRITERS)}
        self._readers = [
            self._start(read_on, self.path, self._stop, folder / f"reader-{n}") for n in range(NUM_READERS)
        ]

    def rage(self, duration_s: float) -> None:
        """Kill a writer at random and start its next life, again and again."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            time.sleep(self._random.uniform(0.5, 1.5) * KILL_PERIOD_S)
            worker_id = self._random.choice(sorted(self._writers))
            if ledger_path(self._folder, worker_id).exists():  # it lives, so there is something to kill it in
                self._writers[worker_id].kill()
                self._writers[worker_id].join()
                self._writers[worker_id] = self._start_writer(worker_id)
                self.num_kills += 1

    def calm(self) -> None:
        """Let everybody finish what they are at, and wait for their ends."""
        self._stop.touch()
        for process in (*self._writers.values(), *self._readers):
            process.join()
            assert process.exitcode == 0

    def reports(self) -> list[dict[str, object]]:
        return [json.loads((self._folder / f"reader-{number}").read_text()) for number in range(NUM_READERS)]

    def end(self) -> None:
        for process in (*self._writers.values(), *self._readers):
            process.kill()

    def _start_writer(self, worker_id: str) -> BaseProcess:
        return self._start(write_on, self.path, self._stop, worker_id, ledger_path(self._folder, worker_id))

    def _start(self, target: object, *arguments: object) -> BaseProcess:
        process = spawning.Process(target=target, args=arguments, daemon=True)
        process.start()
        return process


def write_on(path: Path, stop: Path, worker_id: str, ledger: Path) -> None:
    """One life of a writer."""
    file = StatusFile(path, lock_timeout_s=LOCK_TIMEOUT_S)
    with file.claimed(worker_id, url="http://127.0.0.1:7861") as first, ledger.open("a") as lines:
        seq = first.seq
        while True:
            lines.write(f"[{first.generation}, {seq}]\n")
            lines.flush()
            if stop.exists():
                return
            time.sleep(WRITE_PERIOD_S)
            seq += 1
            file.write(next_record(first, seq))


def next_record(first: WorkerStatus, seq: int) -> WorkerStatus:
    return WorkerStatus(
        id=first.id,
        url=first.url,
        pid=first.pid,
        start_time=first.start_time,
        generation=first.generation,
        seq=seq,
        state="ready",
        model="x" * (seq % 200),  # the file's length changes all the time
        wall_time=utc_time(time.time()),
    )


def read_on(path: Path, stop: Path, report: Path) -> None:
    """Read without a pause, and note everything that must not be seen."""
    errors: list[str] = []
    seen: dict[str, tuple[int, int]] = {}
    reads = 0
    while not stop.exists():
        try:
            statuses = read_statuses(path)
        except StatusUnreadable as exc:
            errors.append(exc.message)
            continue
        reads += 1
        errors.extend(f"{worker_id} vanished" for worker_id in seen.keys() - statuses.keys())
        for worker_id, status in statuses.items():
            pulse = (status.generation, status.seq)
            if pulse < seen.get(worker_id, (0, 0)):
                errors.append(f"{worker_id} went back from {seen[worker_id]} to {pulse}")
            seen[worker_id] = pulse
    report.write_text(json.dumps({"reads": reads, "errors": errors[:20]}))


def ledger_path(folder: Path, worker_id: str) -> Path:
    return folder / f"ledger-{worker_id}"


def last_line(ledger: Path) -> object:
    return json.loads(ledger.read_text().splitlines()[-1])
