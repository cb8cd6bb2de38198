"""Tables: every encoding and delimiter that people have, cells kept as they are, faults of single rows."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.bulk.table import CsvTable, JsonLines, open_table
from qwen_aio.errors import InvalidRequest

ROWS = [["id", "text", "shop"], ["1", "很好，\n下次还来", "甲"], ["2", 'he said "no", twice', "B;C"], ["3", " ", ""]]
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


def csv_text(rows, delimiter=","):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def written(table, **added):
    """The whole table as it would be written with these values in each row."""
    return table.heading(list(added)) + "".join(table.line(row, added) for row in table.rows())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_every_encoding_and_delimiter_gives_the_same_cells(tmp_path, encoding, delimiter):
    path = tmp_path / "reviews.csv"
    path.write_bytes(csv_text(ROWS, delimiter).encode(encoding))
    table = open_table(path)
    assert table.columns == ROWS[0]
    assert [table.value(row, "text") for row in table.rows()] == [cells[1] for cells in ROWS[1:]]
    again = list(csv.reader(io.StringIO(written(table, label="x")), delimiter=delimiter))
    assert again == [[*cells, "label" if at == 0 else "x"] for at, cells in enumerate(ROWS)]


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_any_cells_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    path.write_text(csv_text([["a", "b", "c"], *rows]), encoding="utf-8", newline="")
    table = CsvTable(path, "utf-8")
    again = list(csv.reader(io.StringIO(written(table, label=1), newline="")))
    assert again == [["a", "b", "c", "label"], *([*cells, "1"] for cells in rows)]


def test_a_tab_separated_file_may_have_one_column(tmp_path):
    path = tmp_path / "reviews.tsv"
    path.write_text("text\ngood, really; good\n", encoding="utf-8")
    table = open_table(path)
    assert table.columns == ["text"]
    assert [table.value(row, "text") for row in table.rows()] == ["good, really; good"]


def test_columns_of_one_name_are_all_kept(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("text,text\na,b\n", encoding="utf-8")
    assert written(open_table(path), label="x") == "text,text,label\na,b,x\n"


def test_a_row_of_another_width_keeps_its_cells_and_the_columns_their_place(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("id,text\n1\n\n2,a,b,c\n3,d\n", encoding="utf-8")
    table = open_table(path)
    assert [row.fault for row in table.rows()] == [
        "it has 1 cells, the heading has 2",
        "it has 4 cells, the heading has 2",
        None,
    ]
    assert written(table, label="x") == 'id,text,label\n1,,x\n2,"a,b,c",x\n3,d,x\n'


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quote_without_an_end_is_told_and_not_swallowed(tmp_path, end):
    path = tmp_path / "open.csv"
    path.write_text('id,text\n1,"good\n2,bad\n3,fine' + end, encoding="utf-8")
    with pytest.raises(InvalidRequest, match="a quoted cell has no end"):
        list(open_table(path).rows())


def test_a_cell_without_bounds_is_an_error(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text('text\n"' + "x" * 1_100_000 + '"\n', encoding="utf-8")
    with pytest.raises(InvalidRequest, match="field larger than field limit"):
        list(open_table(path).rows())


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"PK\x03\x04....", "a.xlsx", "save the sheet as CSV"),
        (b"text\ncaf\xe9\n", "a.csv", "neither UTF-8 nor GB18030"),
        (b"text\na\0b\n", "a.csv", "NUL bytes"),
        (b"", "a.csv", "no heading"),
        (b"\n\n", "a.csv", "no heading"),
    ],
)
def test_what_is_no_table_is_told_in_a_sentence(tmp_path, content, name, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        list(open_table(path).rows())


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        open_table(tmp_path / "none.csv")


def test_lines_of_json_keep_their_values_and_their_faults(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"text": "好", "n": [1, {"a": None}]}
    lines = [json.dumps(good), "", "nonsense", "[1]", '{"text": 5}', '{"other": 1}', '{"text": "\\ud800"}', "[" * 9000]
    path.write_text("\n".join(lines), encoding="utf-8")
    table = open_table(path)
    assert isinstance(table, JsonLines) and table.columns == ["text", "n"]
    rows = list(table.rows())
    assert [bool(row.fault) for row in rows] == [False, True, True, False, False, True, True]
    assert json.loads(table.line(rows[0], {"label": "x"})) == good | {"label": "x"}
    assert json.loads(table.line(rows[1], {"label": None})) == {"line": "nonsense", "label": None}
    for row in rows[3:5]:
        with pytest.raises(InvalidRequest, match="no text under 'text'"):
            table.value(row, "text")


def test_lines_of_json_are_known_without_a_name(tmp_path):
    path = tmp_path / "stdin"
    path.write_text('{"text": "a"}\n', encoding="utf-8")
    assert isinstance(open_table(path), JsonLines)
