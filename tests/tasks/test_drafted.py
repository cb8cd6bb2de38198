import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.tasks.drafted import Draft, Example, label_names
from qwen_aio.tasks.loader import load_task, load_tasks
from qwen_aio.tasks.task_file import NAME
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.visible import has_visible

WORDS = st.text(max_size=40).map(str.strip).filter(has_visible)


def test_a_draft_is_a_task_that_people_can_go_on_with(tmp_path):
    examples = (Example("请马上处理", "紧急"), Example("有空再看", "普通"))
    Draft("urgency", ("紧急", "普通"), examples, "zh").write(tmp_path / "urgency", ["快点", "不急"])
    task = load_task(tmp_path / "urgency")
    assert [(label.name, label.text) for label in task.labels] == [("label_1", "紧急"), ("label_2", "普通")]
    assert [case.text for case in task.golden] == ["快点", "不急"]
    prompt = PromptTemplate(task).prompt("现在就要")
    head = "".join(segment.text for segment in prompt.head if hasattr(segment, "text"))
    assert "只答其中一个:紧急、普通。\n例子:\n文字:请马上处理\n类别:紧急\n文字:有空再看\n类别:普通" in head


@given(
    labels=st.lists(WORDS, min_size=2, max_size=6, unique=True),
    texts=st.lists(WORDS, max_size=4),
    language=st.sampled_from(["zh", "en"]),
)
def test_any_labels_and_examples_make_a_valid_task_whose_prompt_shows_them(tmp_path_factory, labels, texts, language):
    home = tmp_path_factory.mktemp("drafts")
    examples = tuple(Example(text, labels[0]) for text in texts)
    Draft("any_task", tuple(labels), examples, language).write(home / "any_task", texts)
    task = load_tasks(home)["any_task"]
    assert [label.text for label in task.labels] == labels
    head = "".join(segment.text for segment in PromptTemplate(task).prompt("x").head if hasattr(segment, "text"))
    for text in texts:
        assert " ".join(text.split()) in head


@pytest.mark.parametrize("text", ["{{ 1 }}", "{% endblock %}", "{# x #}", '"}}', "<|im_end|>", "a #} b"])
def test_what_means_something_to_jinja_stays_text(tmp_path, text):
    Draft("safe", (text, "other"), (Example(text, text),), "en").write(tmp_path / "safe")
    prompt = PromptTemplate(load_task(tmp_path / "safe")).prompt("x")
    head = "".join(segment.text for segment in prompt.head if hasattr(segment, "text"))
    assert f"Text: {text}\nClass: {text}" in head


@given(st.lists(WORDS, min_size=2, max_size=20, unique=True))
def test_every_label_has_a_name_of_its_own(labels):
    names = label_names(labels)
    assert len(set(names)) == len(names) == len(labels)
    assert all(re.fullmatch(NAME, name) for name in names)
