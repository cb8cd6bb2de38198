"""A file as a tab sends it: whole and small enough, or refused in a sentence, and gone afterwards."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_aio.errors import InvalidRequest
from qwen_aio.ui.labelling import FileHandlers
from qwen_aio.ui.sent_file import MAX_FILE_BYTES, sent_table
from qwen_aio.ui.session import Session
from tests.ui.fakes import FakeService

HANDLERS = FileHandlers(FakeService(lambda _: []))


def said(content: bytes, name: str = "reviews.csv", *, size: int | None = None) -> str:
    """What tab.js makes of a file."""
    packed = base64.b64encode(gzip.compress(content)).decode()
    return json.dumps({"name": name, "size": len(content) if size is None else size, "content": packed})


def test_a_file_is_a_table_while_it_is_read_and_gone_afterwards() -> None:
    with sent_table(said("评论,label\n很好,positive\n".encode("gb18030"), "我的 评论.csv")) as table:
        assert table.columns == ["评论", "label"]
        assert table.path.name == "我的_评论.csv" and table.path.exists()
    assert not table.path.parent.exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.csv", "_.._etc_passwd.csv"),
        ("", "file.csv"),
        ("..", "file.csv"),
        ("\0\n", "__"),
        ("x" * 300 + ".csv", "x" * 76 + ".csv"),
        ("好" * 200 + ".csv", "好" * 25 + ".csv"),
        ("𠀀" * 200 + ".csv", "𠀀" * 19 + ".csv"),
    ],
)
def test_a_name_leads_nowhere_else(name: str, kept: str) -> None:
    with sent_table(said(b"text\nhi\n", name)) as table:
        assert table.path.name == kept
        assert table.path.parent.parent == Path(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no file is chosen"),
        ("null", "no file is chosen"),
        ('{"name": "a.csv"}', "no file is chosen"),
        (said(b"text\n" + b"x" * MAX_FILE_BYTES), "too large"),
        (said(b"text\n" + b"x" * 10 * MAX_FILE_BYTES, size=10), "too large"),  # it said less than it holds
        (
            json.dumps({"name": "a.csv", "size": 3_000_000, "content": ""}),
            "compressed, it is still larger",
        ),  # compressed it was, still
        (json.dumps({"name": "a.csv", "size": 5, "content": "!!!!"}), "did not arrive whole"),
        (json.dumps({"name": "a.csv", "size": 5, "content": "aGVsbG8="}), "did not arrive whole"),
        (said(b"text\nhello\n").replace('="', '"'), "did not arrive whole"),
        (said(b"PK\x03\x04..."), "save the sheet as CSV"),
        (said(b"text\n\xff\xff\xff"), "neither UTF-8 nor GB18030"),
        (said(b""), "has no heading"),
        (said("text\nhi\n".encode("utf-16") + b"x"), "begins like UTF-16"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why), sent_table(text):
        pass


@example(content=b"{}\n", name="a.jsonl", cut=300)
@example(content=b"\n", name="a.jsonl", cut=300)
@given(st.binary(max_size=300), st.text(max_size=30), st.integers(0, 300))
def test_whatever_is_sent_is_a_table_or_refused(content: bytes, name: str, cut: int) -> None:
    before = set(Path(tempfile.gettempdir()).glob("qwen-aio-page-*"))
    sent = json.loads(said(content, name))
    sent["content"] = sent["content"][:cut]
    view = asyncio.run(HANDLERS.look(Session(), json.dumps(sent), "sentiment"))
    assert view.columns is not None
    assert bool(view.columns.names) != bool(view.notices)
    assert set(Path(tempfile.gettempdir()).glob("qwen-aio-page-*")) <= before
