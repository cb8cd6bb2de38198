"""Tables that people have: CSV as programs and Excel write it, TSV, and a JSON object a line.

A table is read from its file again and again, row by row, and never held in memory. A row that is not
right is a Row with a fault; only what makes the rest unreadable is an error of the whole file.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from qwen_aio.errors import InvalidRequest

DELIMITERS = ",;\t|"
LONGEST_FIELD = 1_000_000  # characters, as many as a request may have bytes
CHUNK_BYTES = 1 << 20
ZIP_MARK = b"PK\x03\x04"  # .xlsx and .ods are archives
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True)
class Row:
    """One row of a table; `fault` says what is wrong with it. `number` counts from 1, without the heading."""

    number: int
    content: Any  # as its table understands it
    fault: str | None = None


class RowTable(ABC):
    """A file of rows with named columns. `kind` is for people."""

    kind: str

    def __init__(self, path: Path, encoding: str) -> None:
        self.path = path
        self.encoding = encoding

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Names of the columns, as far as they are known before the rows are read."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """The rows from the first one on. Raises InvalidRequest where the rest cannot be read."""

    @abstractmethod
    def value(self, row: Row, column: str) -> str:
        """The text in a column. Raises InvalidRequest if this row has none."""

    @abstractmethod
    def heading(self, added: Sequence[str]) -> str:
        """What a file of these rows with more columns begins with."""

    @abstractmethod
    def line(self, row: Row, added: Mapping[str, object]) -> str:
        """The row with more values behind its own, as it stands in such a file."""

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        with self.path.open(encoding=self.encoding, newline="") as file:
            yield file

    def __str__(self) -> str:
        return f"{self.kind}, {self.encoding}"


class CsvTable(RowTable):
    """Cells between delimiters, under a heading; quoted cells may hold line ends."""

    def __init__(self, path: Path, encoding: str) -> None:
        """Raises InvalidRequest for a file without a heading."""
        super().__init__(path, encoding)
        csv.field_size_limit(LONGEST_FIELD)
        with self._open() as file:
            first = file.readline(LONGEST_FIELD)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else _likeliest_delimiter(first)
        self._columns = next(self._cells(), [])
        if not any(self._columns):
            raise InvalidRequest(f"{path.name} has no heading: its first line names the columns")
        self.kind = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV", "|": "CSV with bars"}[self._delimiter]

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def rows(self) -> Iterator[Row]:
        width = len(self._columns)
        rows = (cells for at, cells in enumerate(self._cells()) if at and cells)  # csv skips nothing by itself
        for number, cells in enumerate(rows, 1):
            fault = None if len(cells) == width else f"it has {len(cells)} cells, the heading has {width}"
            yield Row(number, cells, fault)

    def value(self, row: Row, column: str) -> str:
        cells: list[str] = row.content
        return cells[self._columns.index(column)]

    def heading(self, added: Sequence[str]) -> str:
        return self._written([*self._columns, *added])

    def line(self, row: Row, added: Mapping[str, object]) -> str:
        """A row with too few cells is filled up; what is too much goes into its last cell."""
        width = len(self._columns)
        cells: list[str] = row.content
        own = [*cells, *[""] * (width - len(cells))]
        own[width - 1 :] = [self._delimiter.join(own[width - 1 :])]
        return self._written([*own, *("" if value is None else value for value in added.values())])

    def _cells(self) -> Iterator[list[str]]:
        lines: list[str] = []  # of the row that is being read
        last: list[str] = []  # of the one before
        with self._open() as file:
            reader = csv.reader(_noted(file, lines), delimiter=self._delimiter)
            try:
                for cells in reader:
                    last = list(lines)
                    lines.clear()
                    yield cells
                if _is_open(last, self._delimiter):
                    raise csv.Error("a quoted cell has no end")
            except csv.Error as exc:
                raise InvalidRequest(f"{self.path.name}, before line {reader.line_num}: {exc}") from exc

    def _written(self, cells: Sequence[object]) -> str:
        line = io.StringIO()
        csv.writer(line, delimiter=self._delimiter, lineterminator="\n").writerow(cells)
        return line.getvalue()


class JsonLines(RowTable):
    """A JSON object on each line."""

    kind = "a JSON object a line"

    @property
    def columns(self) -> Sequence[str]:
        return list(next((row.content for row in self.rows() if row.fault is None), {}))

    def rows(self) -> Iterator[Row]:
        with self._open() as file:
            for number, line in enumerate(filter(str.strip, file), 1):
                yield _read_object(number, line.rstrip("\r\n"))

    def value(self, row: Row, column: str) -> str:
        value = row.content.get(column)
        if not isinstance(value, str):
            raise InvalidRequest(f"it has no text under {column!r}")
        return value

    def heading(self, added: Sequence[str]) -> str:  # noqa: ARG002  each line has names of its own
        return ""

    def line(self, row: Row, added: Mapping[str, object]) -> str:
        own = {"line": row.content} if row.fault else row.content
        return json.dumps({**own, **added}, ensure_ascii=False) + "\n"


def _read_object(number: int, line: str) -> Row:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()  # lone surrogates cannot be written
    except (ValueError, RecursionError) as exc:
        return Row(number, line, f"it is not JSON: {exc}")
    return Row(number, found) if isinstance(found, dict) else Row(number, line, "it is not a JSON object")


def open_table(path: Path) -> RowTable:
    """The table in `path`, by its name and its first bytes. Raises InvalidRequest, which says what to do."""
    try:
        with path.open("rb") as file:
            start = file.read(CHUNK_BYTES)
        encoding = _encoding(path, start)
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror}") from exc
    is_json = path.suffix.lower() in JSON_SUFFIXES or (not path.suffix and start.lstrip()[:1] == b"{")
    return JsonLines(path, encoding) if is_json else CsvTable(path, encoding)


def fingerprint(path: Path) -> str:
    """SHA-256 of the content, the first 16 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _encoding(path: Path, start: bytes) -> str:
    """UTF-8 with or without a mark, UTF-16 with one (Excel's "Unicode text"), or GB18030 (Chinese Excel's CSV)."""
    if start.startswith(ZIP_MARK):
        raise InvalidRequest(f"{path.name} is a workbook or an archive; save the sheet as CSV UTF-8")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        if not _is_all(path, "utf-16"):
            raise InvalidRequest(f"{path.name} begins like UTF-16 and is none; save it as UTF-8")
        return "utf-16"
    candidates = ("utf-8-sig",) if start.startswith(codecs.BOM_UTF8) else ("utf-8", "gb18030")
    fitting = next((encoding for encoding in candidates if _is_all(path, encoding)), None)
    if fitting is None:
        raise InvalidRequest(f"{path.name} is neither UTF-8 nor GB18030; save it as UTF-8")
    if b"\0" in start:
        raise InvalidRequest(f"{path.name} holds NUL bytes, so it is no text; save it as UTF-8")
    return fitting


def _is_all(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _noted(file: TextIO, lines: list[str]) -> Iterator[str]:
    for line in file:
        lines.append(line)
        yield line


def _is_open(lines: Sequence[str], delimiter: str) -> bool:
    """Whether the row of these lines ends inside quotes, which only the last row of a file can."""
    if len(lines) == 1 and lines[0].endswith("\n"):
        return False
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as exc:
        return "unexpected end" in str(exc)
    return False


def _likeliest_delimiter(line: str) -> str:
    """The one that divides the heading into most columns; a comma if none does."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter), [])))
