"""`qwen-aio classify` as a user runs it: files in, files out, killed in the middle, with the bundled model and a server."""

import asyncio
import csv
import json
import signal
import subprocess
import sys

import pytest

from qwen_aio.bulk.journal import journal_of
from tests.campaign import CAMPAIGN
from tests.fakes import FakeEngine
from tests.served import Worker, served

COMMAND = (sys.executable, "-m", "qwen_aio.cli.main", "classify")
MANY = 20_000 if CAMPAIGN else 2_000
NUM_KILLS = 3


def classified(*arguments, stdin=None):
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, timeout=100, check=False)


def test_a_file_from_excel_comes_back_with_labels(tmp_path):
    source, output = tmp_path / "评价.csv", tmp_path / "labelled.csv"
    text = "编号;text;label\r\n1;东西很好，下次还来;?\r\n2;  ;?\r\n3;太差了，再也不买;?\r\n4;too;many;cells;?\r\n"
    source.write_bytes(text.encode("gb18030"))
    done = classified(str(source), "--column", "text", "-o", str(output), "--summary", "--model", "bundled")
    assert done.returncode == 1, done.stderr.decode()  # two rows failed
    assert "CSV with semicolons, gb18030, 4 rows" in done.stderr.decode()
    assert output.read_bytes().startswith(b"\xef\xbb\xbf")  # so that Excel knows
    rows = list(csv.reader(output.open(encoding="utf-8-sig", newline=""), delimiter=";"))
    assert rows[0] == ["编号", "text", "label", "sentiment_label", "probability", "confidence", "error"]
    assert [row[:4] for row in rows[1:]] == [
        ["1", "东西很好，下次还来", "?", "positive"],
        ["2", "  ", "?", ""],
        ["3", "太差了，再也不买", "?", "negative"],
        ["4", "too", "many;cells;?", ""],
    ]
    assert [bool(row[6]) for row in rows[1:]] == [False, True, False, True]
    assert all(0.5 < float(row[4]) <= 1 for row in (rows[1], rows[3]))
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["error", "positive", "negative"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["labelled.csv", "评价.csv"]


def test_a_generating_task_fills_one_column_from_standard_input(tmp_path):
    output = tmp_path / "out.jsonl"
    line = json.dumps({"text": "谢谢你，东西很好", "n": 1}) + "\n"
    flags = ("--task", "chat", "--seed", "1", "--model", "bundled")
    done = classified("-", *flags, "-o", str(output), stdin=line.encode())
    assert done.returncode == 0, done.stderr.decode()
    [row] = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert list(row) == ["text", "n", "answer", "error"]
    assert row["answer"] and row["error"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--column", "nothing"], "there is no column 'nothing'; there are: text"),
        (["--task", "nothing"], "unknown task 'nothing'"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_written(tmp_path, flags, message):
    source, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n", encoding="utf-8")
    done = classified(str(source), *flags, "-o", str(output), "--model", "bundled")
    assert done.returncode == 1
    assert message in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert not output.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
async def test_a_run_killed_again_and_again_has_every_row_once(tmp_path):
    source, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    source.write_text("id,text\n" + "".join(f'{number},"row\n{number}"\n' for number in range(MANY)), encoding="utf-8")
    async with served(Worker(FakeEngine())) as there:
        command = (*COMMAND, str(source), "-o", str(output), "--url", there.url)
        for kill in range(1, NUM_KILLS + 1):
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            while not output.exists() or output.stat().st_size < kill * MANY * 10 // (NUM_KILLS + 1):
                assert process.returncode is None, "it ended before it could be killed"
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            await process.communicate()
            assert journal_of(output).exists()
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(number) for number in range(MANY)]
    assert {(row["label"], row["error"]) for row in rows} == {("negative", "")}
    assert not journal_of(output).exists()
