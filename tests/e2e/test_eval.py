"""`qwen-aio eval` as a user runs it, with the bundled model: a report to look at, gates for CI, a second subject."""

import json
import subprocess
import sys

import pytest
from playwright.sync_api import Browser

COMMAND = (sys.executable, "-m", "qwen_aio.cli.main", "eval")
ROWS = (
    ("东西很好，下次还来", "5"),
    ("质量太差了，再也不买", "1"),
    ("非常满意，推荐购买", "5"),
    ("客服态度恶劣，差评", "1"),
    ("今天收到了快递", "3"),
    ("what a great phone, I love it", "5"),
    ("<script>document.title = 'broken'</script>很差", "1"),
    ("no label here", "?"),
    ("", "1"),
)
MEANING = ("--label", "5=positive", "--label", "1=negative", "--label", "3=neutral")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("eval") / "reviews.csv"
    path.write_text("text,stars\n" + "".join(f'"{text}",{stars}\n' for text, stars in ROWS), encoding="utf-8-sig")
    return path


def evaluated(*arguments):
    command = (*COMMAND, *map(str, arguments), "--model", "bundled")
    return subprocess.run(command, capture_output=True, timeout=110, check=False)


def test_a_report_opens_in_a_browser_without_a_network(source, browser: Browser):
    page_file, json_file = source.with_name("report.html"), source.with_name("report.json")
    flags = ("--label-column", "stars", *MEANING, "--target", "0.9", "--html", page_file, "--json", json_file)
    done = evaluated(source, *flags, "--against-precision", "fp32")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(json_file.read_text(encoding="utf-8"))
    assert found["metrics"]["num_rows"] == 7 and found["metrics"]["accuracy"]["value"] >= 5 / 7
    assert found["left_out"] == {
        "'?' is no label": 1,
        "the text has nothing visible in it; send at least one visible character": 1,
    }
    assert found["subject"]["is_calibrated"] and found["other"]["difference"]["num_rows"] == 7
    assert {"upper case", "white space", "emoji", "punctuation", "label order"} <= found["flips"].keys()
    assert found["flips"]["label order"]["count"] == 0  # the shipped prompt names its labels by itself
    assert "left out: 1 rows ('?' is no label)" in done.stdout.decode()
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert page.title() == "Evaluation: reviews.csv"
    assert page.locator("svg").count() == 2 and page.locator("table").count() >= 5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert asked == [page_file.as_uri()]
    context.close()


def test_a_gate_that_is_missed_is_an_exit_status(source):
    gates = ("--fail-under", "accuracy=0.1", "--fail-under", "macro_f1=1.01")
    done = evaluated(source, "--label-column", "stars", *MEANING, "--no-flips", *gates)
    assert done.returncode == 1, done.stderr.decode()
    assert "is under 1.01" in done.stderr.decode() and "accuracy" not in done.stderr.decode()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label-column", "rating"], "there is no column 'rating'; there are: text, stars"),
        (["--label-column", "stars"], "no row can be judged: 4 rows: '1' is no label; 3 rows: '5' is no label"),
        (["--label-column", "stars", "--label", "5=great"], "write VALUE=LABEL; the labels are positive"),
        (["--label-column", "stars", "--task", "chat"], "'chat' is no decision task; there are: safety, sentiment"),
        (["--label-column", "stars", "--target", "1.5"], "--target: 1.5 is not between 0 and 1"),
        (["--label-column", "stars", "--fail-under", "beauty=1"], "write accuracy=0.9 or macro_f1=0.9"),
        (["--label-column", "stars", *MEANING, "--against-precision", "int3"], "precision"),
    ],
)
def test_a_mistake_is_one_sentence(source, flags, message):
    done = evaluated(source, *flags)
    assert done.returncode == 1
    assert message in done.stderr.decode() and "Traceback" not in done.stderr.decode()
