import pytest

from benchmarks.flips import OTHER_FOCUS_WORDS, TYPINGS, UNSEEN, worded_tasks
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate
from training.prompts import WORDINGS, worded

TEXTS = {"zh": "快递太慢了，那家店的客服态度很差！", "en": "The battery isn't good, and the staff were rude."}


@pytest.mark.parametrize(("language", "name"), [(language, name) for language in TYPINGS for name in TYPINGS[language]])
def test_every_typing_changes_a_text_and_keeps_its_words_readable(language, name):
    text = TEXTS[language]
    changed = TYPINGS[language][name](text)
    assert changed != text
    assert changed.strip()
    assert TYPINGS[language][name]("好") or language == "en"


def test_every_wording_is_a_task_that_the_product_loads_and_renders_as_in_training(tmp_path):
    worded_tasks(tmp_path)
    tasks = load_tasks(tmp_path)
    for wanted in worded(tasks["sentiment"]):
        found = tasks[wanted.name.replace("-", "_")]
        assert PromptTemplate(found).prompt("太差了").body == PromptTemplate(wanted).prompt("太差了").body
        assert found.labels == wanted.labels
    assert {f"sentiment_{wording.name}" for wording in (*WORDINGS, *UNSEEN)} < tasks.keys()
    assert list(tasks["sentiment_focus"].focus_words) == OTHER_FOCUS_WORDS
