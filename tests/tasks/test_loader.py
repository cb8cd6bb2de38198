from pathlib import Path

import pytest

from qwen_aio.errors import InvalidTask
from qwen_aio.tasks.loader import load_task, load_tasks, tasks_hash

PROMPT = "{% block system %}s{% endblock %}{% block user %}{{ text }}{% endblock %}{% block answer %}{% endblock %}"
DECISION = """
kind = "decision"
title = { en = "Mood" }
labels = [
    { name = "good", text = "好", emoji = "+" },
    { name = "bad", text = "坏", emoji = "-" },
]
"""


def write_task(folder: Path, toml: str, *, golden: str = "", prompt: str = PROMPT) -> Path:
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(toml, encoding="utf-8")
    (folder / "prompt.j2").write_text(prompt, encoding="utf-8")
    if golden:
        (folder / "golden.jsonl").write_text(golden, encoding="utf-8")
    return folder


def test_the_shipped_tasks_load():
    tasks = load_tasks(Path("prompts"))
    assert {"sentiment", "chat", "summarize"} <= set(tasks)
    assert [label.text for label in tasks["sentiment"].labels] == ["正面", "中性", "负面"]
    assert tasks["sentiment"].companion == "chat"
    assert tasks["chat"].companion == "sentiment"
    assert all(task.golden for task in tasks.values())


def test_a_folder_is_all_a_task_needs(tmp_path):
    write_task(tmp_path / "mood", DECISION, golden='{"text": "hi"}\n')
    task = load_tasks(tmp_path)["mood"]
    assert (task.name, task.kind, len(task.labels), len(task.golden)) == ("mood", "decision", 2, 1)


@pytest.mark.parametrize(
    ("extra", "line", "message"),
    [
        ("colour = 3", 8, "unknown key"),
        ("[confidence]\nhigh = 0.9\nhihg = 1", 10, "confidence.hihg: unknown key; did you mean high?"),
        ("[confidence]\nhigh = 2", 9, "confidence.high"),
        ('[[rules]]\nname = "x"\npriority = 1\nwordz = ["a"]', 11, "unknown key"),
        ("[sampling]\ntemperature = -1", 9, "sampling.temperature"),
        ("[confidence]\nhigh = 0.9\n[neutral]\nlabel = 'bad'\nbelow = 0.5\nhigh = 1", 13, "neutral.high"),
        (
            "[[rules]]\nname = 'a'\npriority = 1\nmax_chars = 9\n[[rules]]\nname = 'b'\npriority = 2\nmax_chars = 'x'",
            15,
            "rules.1.max_chars",
        ),
    ],
)
def test_a_wrong_key_is_reported_with_file_and_line(tmp_path, extra, line, message):
    folder = write_task(tmp_path / "mood", DECISION + extra)
    with pytest.raises(InvalidTask, match=r"task\.toml") as caught:
        load_task(folder)
    assert f"task.toml:{line}:" in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("kind = 'decision'\ntitle = {en = 'x'}", "at least two labels"),
        (DECISION + "[neutral]\nlabel = 'so so'\nbelow = 0.5", "neutral.label"),
        (DECISION + "[confidence]\nhigh = 0.5\nmedium = 0.9", "above high"),
        (DECISION + 'text_format = "{nothing}"', "merged_format know"),
        (DECISION + 'text_format = "{label.nothing}"', "merged_format know"),
        (DECISION + "[[rules]]\nname = 'all'\npriority = 1", "no condition"),
        (DECISION + "[[rules]]\nname = 'bad'\npriority = 1\npatterns = ['(']", "regular expression"),
        (DECISION + "[[rules]]\nname = 'r'\npriority = 1\nwords = ['a']\nreply = 'hi'", "fixed reply"),
        (DECISION.replace('"坏"', '"好"'), "must differ"),
        ("kind = ", "not TOML"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused_in_words(tmp_path, toml, message):
    with pytest.raises(InvalidTask, match=message):
        load_task(write_task(tmp_path / "mood", toml))


@pytest.mark.parametrize("name", ["auto", "Mood", "a b", "1st"])
def test_names_that_could_not_be_modes_are_refused(tmp_path, name):
    with pytest.raises(InvalidTask, match="named by"):
        load_task(write_task(tmp_path / name, DECISION))


def test_other_separators_of_lines_are_text_in_a_golden_case(tmp_path):
    golden = '{"text": "one\u2028two\u0085three"}\r\n'
    [case] = load_task(write_task(tmp_path / "mood", DECISION, golden=golden)).golden
    assert case.text == "one\u2028two\u0085three"


def test_a_task_file_of_brackets_is_refused(tmp_path):
    with pytest.raises(InvalidTask, match="not TOML"):
        load_task(write_task(tmp_path / "mood", "a = " + "[" * 20_000))


@pytest.mark.parametrize(
    "golden",
    [
        *("{", '{"txt": "x"}', '{"text": "x", "answer": "y"}', '{"text": 5}', '{"text": null}', '{"text": ["好"]}'),
        *("5", "[" * 100_000, '{"text": "\\ud800好"}', '{"text": "x", "answer": ""}', '{"text": "x", "answer": 5}'),
    ],
    ids=lambda line: line[:30],
)
def test_a_bad_golden_case_is_reported_with_its_line(tmp_path, golden):
    with pytest.raises(InvalidTask, match=r"golden\.jsonl:2"):
        load_task(write_task(tmp_path / "mood", DECISION, golden='{"text": "ok"}\n' + golden))


def test_a_companion_must_exist_and_be_of_the_other_kind(tmp_path):
    write_task(tmp_path / "mood", 'companion = "other"' + DECISION)
    write_task(tmp_path / "other", DECISION)
    with pytest.raises(InvalidTask, match="companion 'other'"):
        load_tasks(tmp_path)


def test_an_empty_or_missing_folder_is_reported(tmp_path):
    with pytest.raises(InvalidTask, match="holds no task"):
        load_tasks(tmp_path)
    with pytest.raises(InvalidTask, match="no folder of tasks"):
        load_tasks(tmp_path / "nowhere")


def test_the_hash_covers_prompt_and_settings_but_not_line_ends(tmp_path):
    one = load_task(write_task(tmp_path / "a" / "mood", DECISION))
    crlf = load_task(write_task(tmp_path / "b" / "mood", DECISION.replace("\n", "\r\n")))
    other = load_task(write_task(tmp_path / "c" / "mood", DECISION, prompt=PROMPT.replace("}s{", "}t{")))
    assert one.hash == crlf.hash != other.hash
    assert tasks_hash({"mood": one}) != tasks_hash({"mood": other})


MARK = "\ufeff"


def test_a_byte_order_mark_changes_nothing_about_a_task(tmp_path):
    plain = load_task(write_task(tmp_path / "plain" / "mood", DECISION, golden='{"text": "hi"}\n'))
    folder = tmp_path / "marked" / "mood"
    marked = load_task(write_task(folder, MARK + DECISION, golden=MARK + '{"text": "hi"}\n', prompt=MARK + PROMPT))
    assert marked == plain


@pytest.mark.parametrize("name", ["task.toml", "prompt.j2", "golden.jsonl"])
def test_a_file_of_a_task_in_another_encoding_is_named(tmp_path, name):
    folder = write_task(tmp_path / "mood", DECISION, golden='{"text": "hi"}\n')
    (folder / name).write_text((folder / name).read_text(encoding="utf-8"), encoding="utf-16")
    with pytest.raises(InvalidTask, match=f"{name} cannot be read: it is saved as UTF-16"):
        load_task(folder)
