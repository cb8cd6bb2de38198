"""Text files of editors and shells, read or refused with the encoding's name; files that are replaced whole."""

from pathlib import Path

import pytest

from qwen_aio.files import read_text, replacing

TEXT = "一 = 1\n二 = 2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_utf_8_is_read_with_and_without_a_mark(tmp_path: Path, encoding: str, line_end: str) -> None:
    (tmp_path / "file").write_bytes(TEXT.replace("\n", line_end).encode(encoding))
    assert read_text(tmp_path / "file") == TEXT


def test_only_the_first_mark_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("\ufeff\ufeffa\ufeff".encode())
    assert read_text(tmp_path / "file") == "\ufeffa\ufeff"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "saved as UTF-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "saved as UTF-16"),
        (TEXT.encode("utf-32"), "saved as UTF-32"),
        ("a = 1".encode("utf-16-le"), "as UTF-16 without a mark"),
        ("a = 1".encode("utf-16-be"), "as UTF-16 without a mark"),
        (b"a = 1\nb = '\xd5\xfd'", "line 2 is not UTF-8 (byte 0xd5)"),  # 正 as Notepad saves it on a Chinese Windows
    ],
)
def test_another_encoding_is_named_with_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="save it as UTF-8") as refused:
        read_text(tmp_path / "file")
    assert message in str(refused.value)


# ---- replacing a file ----


def test_the_old_content_stands_until_all_of_the_new_is_written(tmp_path: Path) -> None:
    path = tmp_path / "state" / "record.json"
    for old, new in ((None, "first"), ("first", "second")):
        with replacing(path) as partial:
            partial.write_text(new)
            assert (path.read_text() if path.exists() else None) == old
        assert path.read_text() == new
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_writer_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_the_same_time_do_not_meet_and_the_last_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_replaced_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(OSError), replacing(tmp_path / "record.json") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
