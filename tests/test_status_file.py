"""status.json: what may stand in it, who may write it, and what is left of it after anything that can happen."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.errors import DuplicateWorker, StatusUnreadable, StatusUnwritable
from qwen_aio.status.file import KEEP_S, READ_LIMIT, WRITE_LIMIT, StatusFile, read_statuses, utc_time
from qwen_aio.status.record import LARGEST, WorkerStatus
from tests.fakes import FakeClock

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
URL = "http://127.0.0.1:7861"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status" / "status.json"


def writer(
    path: Path, *, clock: FakeClock | None = None, wall_clock: FakeClock | None = None, lock_timeout_s: float = 5
) -> StatusFile:
    clock = clock or FakeClock(NOON)
    return StatusFile(path, lock_timeout_s=lock_timeout_s, clock=clock, wall_clock=wall_clock or clock)


def record(
    worker_id: str = "qwen-1", *, seq: int = 1, generation: int = 1, pid: int = 4242, at: float = NOON
) -> WorkerStatus:
    return WorkerStatus(
        id=worker_id,
        url=URL,
        pid=pid,
        start_time=NOON,
        generation=generation,
        seq=seq,
        state="ready",
        wall_time=utc_time(at),
    )


def entry(**changes: object) -> dict[str, object]:
    return {**asdict(record()), **changes}


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put_entries(path: Path, *entries: dict[str, object]) -> None:
    put_text(path, json.dumps({"version": 1, "workers": {str(item["id"]): item for item in entries}}))


# ---- reading --------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
amounts = st.floats(min_value=0, max_value=1e9)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
records = st.builds(
    WorkerStatus,
    id=st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True),
    url=st.just(URL),
    pid=st.integers(1, 2**22),
    start_time=amounts,
    generation=st.integers(0, LARGEST),
    seq=st.integers(0, LARGEST),
    state=st.sampled_from(["starting", "ready", "draining", "failed"]),
    queue_depth=st.integers(0, 10**6),
    running=st.integers(0, 100),
    capacity=st.integers(0, 100),
    completed=st.integers(0, 10**9),
    latency_ms_last5=st.lists(amounts, max_size=5).map(tuple),
    latency_ms_mean5=st.none() | amounts,
    ttft_ms_mean5=st.none() | amounts,
    slow_ms=st.none() | amounts,
    tokens_per_second=amounts,
    cpu_percent=amounts,
    cpu_jitter=amounts,
    rss_mb=amounts,
    model=texts,
    model_sha=texts,
    precision=texts,
    tasks_sha=texts,
    wall_time=st.just(utc_time(NOON)),
    golden=st.dictionaries(texts, texts, max_size=3),
)


def read_or_refuse(path: Path) -> dict[str, WorkerStatus]:
    try:
        return read_statuses(path)
    except StatusUnreadable as exc:
        assert str(path) in exc.message
        return {}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "status.json"


@given(status=records)
def test_what_is_written_is_read_back_unchanged(scratch: Path, status: WorkerStatus) -> None:
    scratch.unlink(missing_ok=True)
    StatusFile(scratch, lock_timeout_s=5, clock=FakeClock(NOON)).write(status)
    assert read_statuses(scratch) == {status.id: status}


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused_in_words(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    assert read_or_refuse(scratch) == {}


@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_cut_or_damaged_file_gives_sound_records_or_is_refused(scratch: Path, cut: int, flip: int, byte: int) -> None:
    scratch.unlink(missing_ok=True)
    writer(scratch).write(record())
    content = bytearray(scratch.read_bytes())
    content[flip % len(content)] = byte
    scratch.write_bytes(content[: cut % (len(content) + 1)])
    for worker_id, status in read_or_refuse(scratch).items():
        assert worker_id == status.id and status.url.startswith("http")


@given(changes=st.dictionaries(st.sampled_from(sorted(entry())), json_values, max_size=4), extra=json_values)
def test_any_field_may_hold_anything(scratch: Path, changes: dict[str, object], extra: object) -> None:
    scratch.write_text(json.dumps({"version": 1, "workers": {"qwen-1": {**entry(), **changes, "new": extra}}}))
    for status in read_statuses(scratch).values():
        numbers = [status.cpu_percent, status.cpu_jitter, status.rss_mb, status.completed, status.slow_ms or 0.0]
        assert all(0 <= number <= LARGEST for number in (*numbers, *status.latency_ms_last5))
        assert len(status.latency_ms_last5) <= 5
        json.dumps(asdict(status), ensure_ascii=False, allow_nan=False).encode()  # can be sent on


def test_no_file_means_no_workers_yet(path: Path) -> None:
    assert read_statuses(path) == {}


def test_a_byte_order_mark_changes_nothing(path: Path) -> None:
    writer(path).write(record())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_statuses(path) == {"qwen-1": record()}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "{}",
        '{"workers": []}',
        '{"workers": {"qwen-1"',
        "[" * 100_000,
        "9" * 10_000,
        "\ud800",
    ],
)
def test_what_is_no_table_of_workers_is_refused_and_healed_by_the_next_write(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StatusUnreadable):
        read_statuses(path)
    writer(path).write(record())
    assert read_statuses(path) == {"qwen-1": record()}


def test_a_huge_file_is_refused_unread_and_healed(path: Path) -> None:
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    with pytest.raises(StatusUnreadable, match=f"more than {READ_LIMIT}"):
        read_statuses(path)
    writer(path).write(record())
    assert path.stat().st_size < WRITE_LIMIT


def test_a_folder_in_its_place_is_refused_until_it_is_gone(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StatusUnreadable, match="not a plain file"):
        read_statuses(path)
    file = writer(path)
    with pytest.raises(StatusUnwritable, match=r"status\.json"):
        file.write(record())
    path.rmdir()
    file.write(record())
    assert read_statuses(path) == {"qwen-1": record()}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_its_place_does_not_hang_the_reader(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(StatusUnreadable):
        read_statuses(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "4242"},
        {"pid": True},
        {"seq": -1},
        {"generation": 1.5},
        {"state": "wonderful"},
        {"state": ["ready"]},
        {"url": "javascript:alert(1)"},
        {"url": None},
        {"id": "somebody-else"},
    ],
)
def test_a_record_without_a_sound_identity_is_left_out_and_purged(path: Path, changes: dict[str, object]) -> None:
    put_text(path, json.dumps({"workers": {"qwen-1": entry(**changes), "qwen-2": entry(id="qwen-2")}}))
    assert set(read_statuses(path)) == {"qwen-2"}
    writer(path).write(record("qwen-3"))
    assert set(json.loads(path.read_text())["workers"]) == {"qwen-2", "qwen-3"}


def test_numbers_that_make_no_sense_are_mended(path: Path) -> None:
    numbers = (
        '"queue_depth": -5, "completed": 1e999, "cpu_percent": NaN, "slow_ms": NaN, "running": "many", "rss_mb": -Infinity,'
        '"latency_ms_last5": [1, -2, NaN, "x", 3, 4], "golden": {"chat": "ok", "sentiment": 1}, "model": 7, "tomorrow": {}'
    )
    put_text(path, f'{{"workers": {{"qwen-1": {json.dumps(entry())[:-1]}, {numbers}}}}}}}')
    assert read_statuses(path)["qwen-1"] == replace(
        record(), completed=LARGEST, latency_ms_last5=(0.0, 0.0, 0.0, 3.0, 4.0), golden={"chat": "ok"}
    )


# ---- writing --------------------------------------------------------------------------------------------------------


def test_a_write_replaces_ones_own_record_and_keeps_the_others(path: Path) -> None:
    first, second = writer(path), writer(path)
    first.write(record("qwen-1", seq=1))
    second.write(record("qwen-2", seq=1))
    first.write(record("qwen-1", seq=2))
    assert {worker_id: status.seq for worker_id, status in read_statuses(path).items()} == {"qwen-1": 2, "qwen-2": 1}


def test_an_external_edit_is_honoured_until_the_next_write(path: Path) -> None:
    file = writer(path)
    file.write(record(seq=7))
    put_entries(path, entry(seq=999, generation=99, state="failed"))
    assert read_statuses(path)["qwen-1"].state == "failed"
    file.write(record(seq=8))
    assert read_statuses(path)["qwen-1"] == record(seq=8)


def test_a_writer_whose_id_another_process_owns_is_refused(path: Path) -> None:
    """Whatever generation it has: the other one may have begun anew, in a folder that was deleted under the first."""
    with writer(path).claimed("qwen-1", url=URL) as new:
        for generation in (1, 99):
            with pytest.raises(
                StatusUnwritable, match=rf"another process by now \(pid {new.pid}, {URL}\).*stop this one \(pid 4242, "
            ):
                writer(path).write(record(generation=generation, seq=500))
        assert read_statuses(path) == {"qwen-1": new}


def test_of_two_writers_in_a_folder_that_was_made_anew_the_one_that_claimed_there_writes(path: Path) -> None:
    old, new = writer(path), writer(path)
    with old.claimed("qwen-1", url=URL) as first:
        shutil.rmtree(path.parent)
        old.write(replace(first, seq=2))  # nobody else is there yet
        with new.claimed("qwen-1", url="http://127.0.0.1:7961") as second:
            with pytest.raises(StatusUnwritable, match=r"7961.*since the folder was replaced"):
                old.write(replace(first, seq=3))
            new.write(replace(second, seq=2))
            assert read_statuses(path) == {"qwen-1": replace(second, seq=2)}
        old.write(replace(first, seq=4))
        assert read_statuses(path) == {"qwen-1": replace(first, seq=4)}


def test_a_folder_that_was_moved_away_and_back_is_written_again(path: Path) -> None:
    file = writer(path)
    with file.claimed("qwen-1", url=URL) as first:
        path.parent.rename(path.parent.with_name("elsewhere"))
        file.write(replace(first, seq=2))
        assert read_statuses(path)["qwen-1"].seq == 2
        shutil.rmtree(path.parent)
        path.parent.with_name("elsewhere").rename(path.parent)
        file.write(replace(first, seq=3))
        assert read_statuses(path)["qwen-1"].seq == 3


def test_the_largest_generation_there_can_be_is_not_outgrown(path: Path) -> None:
    put_entries(path, entry(generation=LARGEST))
    with writer(path).claimed("qwen-1", url=URL) as first:
        assert read_statuses(path) == {"qwen-1": first}


@pytest.mark.parametrize("generation", [1, 99])
@pytest.mark.parametrize("ahead_s", [-8 * 3600, 0, 8 * 3600])
def test_what_is_put_into_the_file_shuts_no_worker_out(path: Path, generation: int, ahead_s: float) -> None:
    file = writer(path)
    with file.claimed("qwen-1", url=URL) as first:
        put_entries(path, entry(generation=generation, pid=1, start_time=NOON + ahead_s, wall_time=utc_time(NOON)))
        file.write(replace(first, seq=2))
        assert read_statuses(path) == {"qwen-1": replace(first, seq=2)}


def test_a_record_older_than_ten_minutes_is_purged(path: Path) -> None:
    clock = FakeClock(NOON)
    file = writer(path, clock=clock)
    put_entries(path, entry(id="old"), entry(id="undated", wall_time="yesterday"))
    file.write(record())
    assert set(read_statuses(path)) == {"old", "qwen-1"}
    clock.advance(KEEP_S + 1)
    file.write(record(seq=2))
    assert set(read_statuses(path)) == {"qwen-1"}


@pytest.mark.parametrize("jump_s", [8 * 3600, -8 * 3600])
def test_a_jump_of_the_wall_clock_erases_no_live_worker(path: Path, jump_s: float) -> None:
    clock, wall_clock = FakeClock(NOON), FakeClock(NOON)
    file = writer(path, clock=clock, wall_clock=wall_clock)
    writer(path).write(record("qwen-2", seq=1))
    file.write(record("qwen-1", seq=1))
    wall_clock.advance(jump_s)
    for seq in (2, 3):  # also if the other has not written in between
        file.write(record("qwen-1", seq=seq))
        assert set(read_statuses(path)) == {"qwen-1", "qwen-2"}


@pytest.mark.parametrize("ahead_s", [8 * 3600, -8 * 3600])
def test_a_worker_whose_clock_is_wrong_is_in_the_file_from_its_next_record_on(path: Path, ahead_s: float) -> None:
    clock = FakeClock(NOON)
    file, wrong = writer(path, clock=clock), writer(path)
    for seq in (1, 2, 3):
        wrong.write(record("qwen-2", seq=seq, at=NOON + ahead_s))
        file.write(record("qwen-1", seq=seq))
        assert seq == 1 or set(read_statuses(path)) == {"qwen-1", "qwen-2"}
    clock.advance(KEEP_S + 1)
    file.write(record("qwen-1", seq=4))
    assert set(read_statuses(path)) == {"qwen-1"}  # it has ended, whatever its record says of the future


def test_the_file_stays_under_its_limit_and_the_oldest_records_give_way(path: Path) -> None:
    file = writer(path)
    for number in range(60):
        file.write(record(f"qwen-{number}", at=NOON - 60 + number))
        assert path.stat().st_size <= WRITE_LIMIT
    kept = set(read_statuses(path))
    assert kept == {f"qwen-{number}" for number in range(60 - len(kept), 60)}
    assert len(kept) >= 25


def test_a_late_writer_is_in_the_file_although_it_is_full_of_newer_records(path: Path) -> None:
    file = writer(path)
    for number in range(60):
        file.write(record(f"qwen-{number}", at=NOON))
    file.write(record("late", at=NOON - 60))
    assert "late" in read_statuses(path)


def test_a_deleted_folder_is_made_again(path: Path) -> None:
    file = writer(path)
    file.write(record())
    for left in path.parent.iterdir():
        left.unlink()
    path.parent.rmdir()
    file.write(record(seq=2))
    assert read_statuses(path)["qwen-1"].seq == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failing_disk_leaves_the_old_file_whole_and_is_reported(path: Path, code: int) -> None:
    writer(path).write(record(seq=1))

    def fail(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    failing = StatusFile(path, lock_timeout_s=5, clock=FakeClock(NOON), replace=fail)
    with pytest.raises(StatusUnwritable, match=f"cannot be written: .*{os.strerror(code)}.*--status-dir"):
        failing.write(record(seq=2))
    assert read_statuses(path)["qwen-1"].seq == 1
    writer(path).write(record(seq=3))
    assert read_statuses(path)["qwen-1"].seq == 3


def test_a_file_that_cannot_be_read_for_a_moment_loses_no_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = writer(path)
    file.write(record("qwen-2"))

    def exhausted(self: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", exhausted)
        with pytest.raises(StatusUnwritable):
            file.write(record("qwen-1"))
    assert set(read_statuses(path)) == {"qwen-2"}


def test_a_file_that_is_open_elsewhere_is_replaced_a_moment_later(path: Path) -> None:
    """On Windows a reader's open file cannot be replaced; here the seam plays such a reader."""
    refusals = iter([PermissionError(errno.EACCES, "open elsewhere")] * 5)

    def replace_patiently(source: Path, target: Path) -> None:
        for refusal in refusals:
            raise refusal
        source.replace(target)

    StatusFile(path, lock_timeout_s=5, clock=FakeClock(NOON), replace=replace_patiently).write(record())
    assert read_statuses(path) == {"qwen-1": record()}


def test_a_file_that_stays_open_elsewhere_is_given_up_in_words(path: Path) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "open elsewhere")

    with pytest.raises(StatusUnwritable, match="open elsewhere"):
        StatusFile(path, lock_timeout_s=5, clock=FakeClock(NOON), replace=refuse).write(record())


# ---- who may write --------------------------------------------------------------------------------------------------

posix_only = pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")


@posix_only
def test_a_symbolic_link_is_refused_and_its_target_left_alone(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(StatusUnwritable, match="symbolic link"):
        writer(path).write(record())
    with pytest.raises(StatusUnreadable):
        read_statuses(path)
    assert target.read_text() == "mine"


@posix_only
def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    path.parent.mkdir()
    path.with_name("status.json.tmp").symlink_to(target)
    writer(path).write(record())
    assert target.read_text() == "mine"
    assert read_statuses(path) == {"qwen-1": record()}


@posix_only
def test_a_folder_that_everybody_may_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with (
        pytest.raises(StatusUnwritable, match=r"written by everybody.*chmod o-w"),
        writer(path).claimed("qwen-1", url=URL),
    ):
        pass
    path.parent.chmod(0o755)
    writer(path).write(record())


@posix_only
def test_neither_folder_nor_file_is_writable_by_everybody_under_a_careless_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        writer(path).write(record())
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o022 == 0
    assert path.stat().st_mode & 0o022 == 0


HOLD_LOCK = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_killed_while_it_holds_the_lock_does_not_block_the_next_writer(path: Path) -> None:
    writer(path).write(record(seq=1))
    lock = path.with_name("status.json.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StatusUnwritable, match=r"held by another process for 0\.05 s"):
            writer(path, lock_timeout_s=0.05).write(record(seq=2))
        holder.kill()
        holder.wait()
    writer(path).write(record(seq=3))
    assert read_statuses(path)["qwen-1"].seq == 3


# ---- whose id -------------------------------------------------------------------------------------------------------


def test_the_first_record_is_in_the_file_before_anything_can_go_wrong(path: Path) -> None:
    with writer(path).claimed("qwen-1", url=URL) as first:
        assert read_statuses(path) == {"qwen-1": first}
        assert (first.pid, first.generation, first.seq, first.state) == (os.getpid(), 1, 1, "starting")


def test_every_life_is_a_new_generation_also_after_a_long_sleep(path: Path) -> None:
    clock = FakeClock(NOON)
    for generation in (1, 2, 3):
        with writer(path, clock=clock).claimed("qwen-1", url=URL) as first:
            assert first.generation == generation
        clock.advance(10 * KEEP_S)


def test_an_id_that_is_alive_is_refused_with_its_owner_named(path: Path) -> None:
    with (
        writer(path).claimed("qwen-1", url=URL),
        pytest.raises(DuplicateWorker, match=rf"qwen-1 is already running \(pid {os.getpid()}, {URL}\).*--id"),
        writer(path).claimed("qwen-1", url="http://127.0.0.1:7862"),
    ):
        pass
    assert read_statuses(path)["qwen-1"].url == URL


def test_an_id_outlives_the_thread_that_claimed_it_and_is_freed_from_another(path: Path) -> None:
    life = writer(path).claimed("qwen-1", url=URL)
    with ThreadPoolExecutor(1) as other_thread:
        other_thread.submit(life.__enter__).result()
    with pytest.raises(DuplicateWorker), writer(path).claimed("qwen-1", url=URL):
        pass
    life.__exit__(None, None, None)
    with writer(path).claimed("qwen-1", url=URL) as first:
        assert first.generation == 2


def test_an_id_stays_owned_when_status_json_is_gone(path: Path) -> None:
    with writer(path).claimed("qwen-1", url=URL):
        path.unlink()
        with pytest.raises(DuplicateWorker, match="its record is missing"), writer(path).claimed("qwen-1", url=URL):
            pass


def test_different_ids_live_side_by_side_even_one_called_like_the_file(path: Path) -> None:
    with writer(path).claimed("qwen-1", url=URL), writer(path).claimed("status.json", url=URL):
        assert set(read_statuses(path)) == {"qwen-1", "status.json"}


CLAIM = """
import sys, time
from pathlib import Path
from qwen_aio.errors import DuplicateWorker
from qwen_aio.status.file import StatusFile
print("up", flush=True)
sys.stdin.readline()
try:
    with StatusFile(Path(sys.argv[1]), lock_timeout_s=10).claimed("qwen-1", url="http://127.0.0.1:7861") as first:
        print(f"won generation {first.generation}", flush=True)
        sys.stdin.read()
except DuplicateWorker as exc:
    print(exc.message, flush=True)
"""


def test_of_processes_that_start_at_the_same_moment_exactly_one_gets_the_id(path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        assert [line_from(racer) for racer in racers] == ["up"] * 3
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = {racer.pid: line_from(racer) for racer in racers}
        (winner,) = (racer for racer in racers if said[racer.pid] == "won generation 1")
        losers = [sentence for pid, sentence in said.items() if pid != winner.pid]
        assert all(f"already running (pid {winner.pid}, {URL})" in sentence for sentence in losers)
        winner.kill()
        winner.wait()
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    # Killed, it left no cleanly closed life behind, and yet the id is free at once.
    with StatusFile(path, lock_timeout_s=5).claimed("qwen-1", url=URL) as first:
        assert first.generation == 2


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_a_stopped_worker_keeps_its_id(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert line_from(worker) == "up"
        worker.stdin.write("go\n")
        worker.stdin.flush()
        assert line_from(worker) == "won generation 1"
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(DuplicateWorker, match=f"pid {worker.pid}"), writer(path).claimed("qwen-1", url=URL):
            pass
        worker.kill()
