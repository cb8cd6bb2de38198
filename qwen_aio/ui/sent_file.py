"""A file of rows that a tab sends: compressed in the browser (tab.js), and on disk here only while it is read."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ValidationError

from qwen_aio.bulk.table import RowTable, open_table
from qwen_aio.errors import InvalidRequest

MAX_FILE_BYTES = 4_000_000  # as it lies on the visitor's disk; compressed it must fit the body of a request, too
MAX_NAME_BYTES = 80
GZIP = 16 + zlib.MAX_WBITS
NOTHING_CHOSEN = "no file is chosen"


class SentFile(BaseModel):
    """What tab.js makes of a chosen file."""

    name: str
    size: int  # bytes
    content: str  # gzip, in base64; empty if it does not fit a request


@contextmanager
def sent_table(said: str) -> Iterator[RowTable]:
    """The table in what a tab said. Raises InvalidRequest."""
    if not said:
        raise InvalidRequest(NOTHING_CHOSEN)
    try:
        sent = SentFile.model_validate_json(said)
    except ValidationError as exc:
        raise InvalidRequest(NOTHING_CHOSEN) from exc
    with TemporaryDirectory(prefix="qwen-aio-page-") as folder:
        path = Path(folder) / _safe(sent.name)
        path.write_bytes(_unpacked(sent))
        yield open_table(path)


def _safe(name: str) -> str:
    """A name for people to know the file by, which leads nowhere else."""
    safe = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    return safe.encode()[-MAX_NAME_BYTES:].decode(errors="ignore") or "file.csv"


def _unpacked(sent: SentFile) -> bytes:
    too_large = InvalidRequest(f"it is too large for the page, which takes {MAX_FILE_BYTES // 1_000_000} MB at most")
    if sent.size > MAX_FILE_BYTES:
        raise too_large
    if sent.size and not sent.content:
        raise InvalidRequest("compressed, it is still larger than a request may be; choose one with fewer rows")
    try:
        unpacking = zlib.decompressobj(GZIP)
        content = unpacking.decompress(base64.b64decode(sent.content, validate=True), MAX_FILE_BYTES + 1)
    except (binascii.Error, ValueError, zlib.error) as exc:
        raise InvalidRequest("it did not arrive whole; please choose it again") from exc
    if len(content) > MAX_FILE_BYTES:
        raise too_large
    if not unpacking.eof:
        raise InvalidRequest("it did not arrive whole; please choose it again")
    return content
