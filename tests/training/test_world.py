"""The small world: same seed, same text; every reply on the matter and in its language."""

import random
import re
from collections import Counter

import pytest

from training.world import beyond_reply, dialogues, labelled_sentences, summaries
from training.world.review import REVIEW_KINDS, claim_slots, matter_slots, review
from training.world.tables import Language, load, slot_names

_CJK = re.compile(r"[\u4e00-\u9fff]")
_COUNT = 3000
_DIALOGUES = tuple(dialogues(_COUNT, seed=0))


def test_same_seed_same_texts() -> None:
    assert list(dialogues(50, seed=3)) == list(dialogues(50, seed=3))
    assert list(dialogues(50, seed=3)) != list(dialogues(50, seed=4))
    assert list(labelled_sentences(50, seed=3)) == list(labelled_sentences(50, seed=3))
    assert list(summaries(50, seed=3)) == list(summaries(50, seed=3))


def test_turns_alternate_and_end_with_the_assistant() -> None:
    for dialogue in _DIALOGUES:
        roles = [role for role, _ in dialogue.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 2 <= len(roles) <= 6
        assert all(text.strip() for _, text in dialogue.turns)


def test_no_phrase_is_left_unwritten() -> None:
    texts = [text for dialogue in _DIALOGUES for _, text in dialogue.turns]
    texts += [text for pair in labelled_sentences(_COUNT, seed=0) for text in pair]
    texts += [text for pair in summaries(_COUNT, seed=0) for text in pair]
    assert not [text for text in texts if re.search(r"[\[\]{}@|]", text)]


def test_replies_are_in_the_language_of_the_user() -> None:
    for dialogue in _DIALOGUES:
        for text in (text for role, text in dialogue.turns if role == "assistant"):
            assert bool(_CJK.search(text)) == (dialogue.language == "zh"), text
            if dialogue.language == "zh":
                assert not re.search(r"[,.!?;]", text), text


def test_languages_labels_and_lengths_are_mixed() -> None:
    languages = Counter(dialogue.language for dialogue in _DIALOGUES)
    assert 0.55 < languages["zh"] / _COUNT < 0.65
    labels = Counter(dialogue.label for dialogue in _DIALOGUES)
    assert min(labels.values()) > 0.2 * _COUNT
    assert 0.3 < sum(len(dialogue.turns) > 2 for dialogue in _DIALOGUES) / _COUNT < 0.4


def test_texts_rarely_repeat() -> None:
    assert len({dialogue.turns[0][1] for dialogue in _DIALOGUES}) > 0.93 * _COUNT
    assert len({dialogue.turns[-1][1] for dialogue in _DIALOGUES}) > 0.7 * _COUNT


def test_sentences_are_balanced_and_summaries_shorter() -> None:
    labels = Counter(label for _, label in labelled_sentences(_COUNT, seed=0))
    assert all(0.3 < labels[label] / _COUNT < 0.37 for label in ("positive", "neutral", "negative"))
    pairs = list(summaries(_COUNT, seed=0))
    assert all(bool(_CJK.search(text)) == bool(_CJK.search(gist)) for text, gist in pairs)
    assert sum(len(gist) for _, gist in pairs) < sum(len(text) for text, _ in pairs)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("kind", REVIEW_KINDS)
def test_reviews_get_an_answer_about_their_aspect(language: Language, kind: str) -> None:
    """Whatever the wording, the reply holds the topic or one of its issues and merits."""
    rng = random.Random(0)
    tables = load(language)
    for _ in range(300):
        topic = review(tables, next(known for known in REVIEW_KINDS if known == kind), rng)
        names = [topic.slots["topic"], *topic.slots["issue"], *topic.slots["merit"]]
        names = [tables.write(str(name), rng=rng, slots=topic.slots) for name in names]
        assert any(name.lower() in topic.reply.lower() for name in names), topic.reply


@pytest.mark.parametrize(
    ("language", "aspect", "clause"),
    [
        ("zh", "delivery", "快递太慢了"),
        ("zh", "service", "客服态度超好"),
        ("zh", "battery", "充一次电只能用3小时"),
        ("zh", "colour", "颜色和图片不太一样"),
        ("en", "delivery", "shipping was too slow"),
        ("en", "service", "customer service was super friendly"),
        ("en", "battery", "the battery only lasts 3 hours"),
        ("en", "colour", "the colour is not like the picture"),
    ],
)
def test_the_product_examples_can_be_said(language: Language, aspect: str, clause: str) -> None:
    tables, rng = load(language), random.Random(0)
    [found] = [known for known in tables.aspects if known.key == aspect]
    thing = next(thing for thing in tables.things if found.suits(thing))
    slots = matter_slots(tables, thing, found, rng) | claim_slots(found, is_sad=True, is_named=True)
    said = {tables.pick_from(found.bad + found.good, rng=rng, slots=slots, tags=thing.tags) for _ in range(5000)}
    assert clause in said


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_tag_of_an_aspect_fits_some_thing(language: Language) -> None:
    tables = load(language)
    tags = frozenset[str]().union(*(thing.tags for thing in tables.things))
    assert all(aspect.fits <= tags for aspect in tables.aspects)
    assert all(len(aspect.advice) >= 3 for aspect in tables.aspects)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_beyond_reply_is_honest_and_varied(language: Language) -> None:
    rng = random.Random(0)
    replies = {beyond_reply(language, rng=rng) for _ in range(300)}
    assert len(replies) > 150
    word = "模型" if language == "zh" else "model"
    assert sum(word in reply for reply in replies) > 0.95 * len(replies)


def test_slot_names_are_found_once_in_order() -> None:
    assert slot_names(["{day} {place}", "{day} [a|{city}]"]) == ["day", "place", "city"]
