"""A file that is replaced: whole at every instant, and nothing is left beside it."""

from __future__ import annotations

import pytest

from qwen_aio.replacing import replacing


def test_the_old_content_stands_until_all_of_the_new_is_written(tmp_path):
    path = tmp_path / "state" / "record.json"
    for old, new in ((None, "first"), ("first", "second")):
        with replacing(path) as partial:
            partial.write_text(new)
            assert (path.read_text() if path.exists() else None) == old
        assert path.read_text() == new
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_whoever_is_interrupted_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_the_same_time_do_not_meet_and_the_last_one_wins(tmp_path):
    path = tmp_path / "record.json"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_replaced_is_an_error_and_nothing_is_left(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(OSError), replacing(tmp_path / "record.json") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
