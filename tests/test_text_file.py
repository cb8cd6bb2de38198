"""What editors and shells make of a text file: read, or refused with the encoding's name."""

from pathlib import Path

import pytest

from qwen_aio.text_file import read_text

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
    ("content", "told"),
    [
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "saved as UTF-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "saved as UTF-16"),
        (TEXT.encode("utf-32"), "saved as UTF-32"),
        ("a = 1".encode("utf-16-le"), "as UTF-16 without a mark"),
        ("a = 1".encode("utf-16-be"), "as UTF-16 without a mark"),
        (b"a = 1\nb = '\xd5\xfd'", "line 2 is not UTF-8 (byte 0xd5)"),  # 正 as Notepad saves it on a Chinese Windows
    ],
)
def test_another_encoding_is_named_with_what_to_do(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="save it as UTF-8") as refused:
        read_text(tmp_path / "file")
    assert told in str(refused.value)
