import random

import pytest

from qwen_aio.tasks.normalise import narrow
from training.prompts import WORDINGS, worded
from training.variations import varied

CHINESE, ENGLISH = "快递太慢了，差评！再也不在这里买了。", "The room wasn't dirty, and I loved the breakfast."


@pytest.mark.parametrize("text", [CHINESE, ENGLISH, "好", "a", "😡", "3"])
def test_the_same_seed_varies_alike_and_something_always_remains(text):
    one, other = random.Random(5), random.Random(5)
    for _ in range(200):
        assert varied(text, "negative", one) == varied(text, "negative", other)
        assert narrow(varied(text, "negative", one))
        varied(text, "negative", other)


def test_people_type_in_many_ways():
    rng = random.Random(1)
    chinese = {varied(CHINESE, "negative", rng) for _ in range(400)}
    assert any("遞" in text for text in chinese)
    assert any(text.count("差评") == 2 or text.count("差評") == 2 for text in chinese)
    assert any(" recommend " in varied("这家店推荐给大家", "positive", rng) for _ in range(100))
    english = {varied(ENGLISH, "positive", rng) for _ in range(400)}
    assert ENGLISH.upper() in english
    assert any("lovvvv" in text or "ooo" in text for text in english) or any("aaaa" in text for text in english)
    assert not any("wasn t" in text for text in english)


def test_a_felt_emoji_goes_with_the_label():
    rng = random.Random(2)
    assert not any(mark in varied(ENGLISH, "positive", rng) for _ in range(500) for mark in "😡😭👎😞💔")
    assert not any(mark in varied(ENGLISH, "negative", rng) for _ in range(500) for mark in "😊😄🥰😍")


def test_every_wording_is_a_task_of_its_own_with_labels_of_the_shipped_one(encoder):
    shipped = encoder.tasks["sentiment"]
    made = list(worded(shipped))
    assert [task.name for task in made] == [f"sentiment-{wording.name}" for wording in WORDINGS]
    assert len({task.template for task in made}) == len(WORDINGS)
    assert all(set(task.labels) <= set(shipped.labels) for task in made)
    assert [len(task.labels) for task in made if task.name == "sentiment-two_labels"] == [2]
