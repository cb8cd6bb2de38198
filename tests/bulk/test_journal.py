"""The journal: whatever is cut off where, a run that goes on has every row once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.bulk.journal import CHECKPOINT_S, journal, journal_of
from qwen_aio.errors import InvalidSettings
from tests.fakes import FakeClock

ABOUT = {"file": "f", "task": "t", "model": "m"}


class Killed(BaseException):
    """What no handler of the product expects."""


def write_rows(path, *, until, clock, total=20, step_s=0.3):
    """A run as classify makes it; what is on the disk afterwards is what the operating system was given."""
    with journal(path, ABOUT, clock=clock) as out:
        if not out.progress.num_bytes:
            out.write("heading\n")
        for number in range(out.progress.rows, total):
            if number == until:
                raise Killed
            out.write(f"row {number}\n", "even" if number % 2 == 0 else "odd")
            clock.advance(step_s)
        return dict(out.progress.outcomes)


WHOLE = "heading\n" + "".join(f"row {number}\n" for number in range(20))


@given(stops=st.lists(st.integers(0, 19), max_size=6))
def test_a_run_that_is_stopped_again_and_again_writes_what_one_writes_in_one_go(tmp_path_factory, stops):
    path = tmp_path_factory.mktemp("run") / "out.csv"
    for stop in sorted(set(stops)):
        with pytest.raises(Killed):
            write_rows(path, until=stop, clock=FakeClock())
    assert write_rows(path, until=None, clock=FakeClock()) == {"even": 10, "odd": 10}
    assert path.read_text(encoding="utf-8") == WHOLE
    assert [found.name for found in path.parent.iterdir()] == ["out.csv"]


@given(kept=st.integers(0, 200), rows=st.integers(0, 20))
def test_whatever_stands_behind_the_last_checkpoint_is_written_again(tmp_path_factory, kept, rows):
    """As after kill -9: the journal is older than the output, which may end in the middle of a row."""
    path = tmp_path_factory.mktemp("run") / "out.csv"
    lines = WHOLE.splitlines(keepends=True)
    num_bytes = len("".join(lines[: rows + 1]).encode())
    path.write_bytes(WHOLE.encode()[: max(kept, num_bytes)] + b"torn")
    outcomes = {"even": (rows + 1) // 2, "odd": rows // 2}
    record = {"about": ABOUT, "rows": rows, "bytes": num_bytes, "outcomes": outcomes}
    journal_of(path).write_text(json.dumps(record), encoding="utf-8")
    assert write_rows(path, until=None, clock=FakeClock()) == {"even": 10, "odd": 10}
    assert path.read_text(encoding="utf-8") == WHOLE


def test_checkpoints_are_as_far_apart_as_said_and_tell_the_truth(tmp_path):
    path, clock = tmp_path / "out.csv", FakeClock()
    with journal(path, ABOUT, clock=clock) as out:
        out.write("heading\n")
        out.write("row\n", "good")
        assert json.loads(journal_of(path).read_text(encoding="utf-8"))["rows"] == 0
        clock.advance(CHECKPOINT_S)
        out.write("row\n", "good")
        record = json.loads(journal_of(path).read_text(encoding="utf-8"))
        assert (record["rows"], record["outcomes"]) == (2, {"good": 2})
        assert path.stat().st_size == record["bytes"]


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "out.csv"
    with (
        journal(path, ABOUT),
        pytest.raises(InvalidSettings, match="another run is writing"),
        journal(path, ABOUT),
    ):
        pass


def test_a_file_of_somebody_else_is_not_touched(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidSettings, match="is there already"), journal(path, ABOUT):
        pass
    assert path.read_text(encoding="utf-8") == "mine"


def test_another_run_is_not_gone_on_with(tmp_path):
    path = tmp_path / "out.csv"
    with pytest.raises(Killed):
        write_rows(path, until=3, clock=FakeClock())
    other = ABOUT | {"task": "other"}
    with pytest.raises(InvalidSettings, match="begun with another task"), journal(path, other):
        pass


@pytest.mark.parametrize("record", ["", "{}", '{"about": {}, "rows": 1}', '{"about": 1, "rows": 1, "bytes": 1}', "[]"])
def test_a_damaged_journal_is_told(tmp_path, record):
    path = tmp_path / "out.csv"
    journal_of(path).write_text(record, encoding="utf-8")
    with pytest.raises(InvalidSettings, match="is damaged"), journal(path, ABOUT):
        pass


def test_a_journal_without_its_output_is_told(tmp_path):
    path = tmp_path / "out.csv"
    with pytest.raises(Killed):
        write_rows(path, until=3, clock=FakeClock())
    path.unlink()
    with pytest.raises(InvalidSettings, match="shorter than its journal says"), journal(path, ABOUT):
        pass


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettings, match="cannot be written"), journal(tmp_path / "file" / "out.csv", ABOUT):
        pass
