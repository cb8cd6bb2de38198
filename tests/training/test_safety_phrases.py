"""Messages of danger: same seed, same messages; enough different phrasings; nothing but the words tells the label."""

import re
from collections import Counter
from itertools import chain, product

import pytest

from training.safety import SAFETY_LABELS, messages
from training.safety.tables import load
from training.world.tables import slot_names

_COUNT = 12_000
_MESSAGES = tuple(messages(_COUNT, seed=0))
_CJK = re.compile(r"[\u3400-\u9fff]")
_DOSE = re.compile(r"\d[\s\[|]*(?:mg|ml|毫克|毫升|片|粒|pills?\b|tablets?\b)", re.IGNORECASE)
_ENOUGH = {"crisis": 500, "medical": 250, "ok": 500}
_EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")
_LANGUAGES = ("zh", "en")


def share(found, among) -> float:
    return sum(map(found, among)) / len(among)


def test_same_seed_same_messages():
    assert list(messages(60, 3)) == list(messages(60, 3))
    assert list(messages(60, 3)) != list(messages(60, 4))


@pytest.mark.parametrize("language", _LANGUAGES)
def test_there_are_enough_phrasings_of_every_label(language):
    tables = load(language)
    for label, enough in _ENOUGH.items():
        assert len(set(tables.phrases_of(label))) >= enough, label


@pytest.mark.parametrize("language", _LANGUAGES)
def test_no_phrase_stands_under_two_labels(language):
    tables = load(language)
    counts = Counter(chain.from_iterable(set(tables.phrases_of(label)) for label in SAFETY_LABELS))
    assert [phrase for phrase, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("language", _LANGUAGES)
def test_every_slot_is_defined_and_every_slot_is_used(language):
    tables = load(language)
    slots = slot_names([*tables.all_phrases, *chain.from_iterable(tables.phrases.values())])
    assert set(slots) == set(tables.phrases)


@pytest.mark.parametrize("language", _LANGUAGES)
def test_brackets_are_paired_and_no_tag_is_meant(language):
    for phrase in load(language).all_phrases:
        assert re.fullmatch(r"(?:[^\[\]|@]|\[[^\[\]]+\])*", phrase), phrase


@pytest.mark.parametrize("language", _LANGUAGES)
def test_no_phrase_holds_a_dose(language):
    tables = load(language)
    phrases = [*tables.all_phrases, *chain.from_iterable(tables.phrases.values())]
    assert [phrase for phrase in phrases if _DOSE.search(phrase)] == []


def test_labels_and_languages_come_in_their_shares():
    labels = Counter(label for _, label, _ in _MESSAGES)
    for label, expected in {"crisis": 0.30, "medical": 0.15, "ok": 0.55}.items():
        assert abs(labels[label] / _COUNT - expected) < 0.015
    for label in SAFETY_LABELS:
        texts = [" ".join((*earlier, text)) for text, known, earlier in _MESSAGES if known == label]
        assert 0.46 < share(lambda text: len(_CJK.findall(text)) > 2, texts) < 0.56


def test_no_message_is_labelled_both_ways():
    labels = {}
    for text, label, earlier in _MESSAGES:
        assert labels.setdefault((text, earlier), label) == label, text


def test_messages_rarely_repeat():
    assert len({(text, earlier) for text, _, earlier in _MESSAGES}) > 0.97 * _COUNT


def test_no_message_is_empty_or_left_unwritten():
    for text, _, earlier in _MESSAGES:
        for turn in (text, *earlier):
            assert turn.strip()
            assert not re.search(r"[\[\]{}]", turn), turn


def test_shape_and_disguise_do_not_tell_the_label():
    """Emoji, earlier turns, line breaks and long texts are as frequent under every label."""
    signs = {
        "emoji": lambda message: bool(_EMOJI.search(message[0])),
        "turns": lambda message: bool(message[2]),
        "lines": lambda message: "\n" in message[0],
        "length": lambda message: len(message[0]) > 150,
        "stars": lambda message: "*" in message[0],
    }
    for sign, label in product(signs.values(), SAFETY_LABELS):
        of_label = [message for message in _MESSAGES if message[1] == label]
        assert abs(share(sign, of_label) - share(sign, _MESSAGES)) < 0.05


def test_a_short_last_turn_takes_its_label_from_the_turns_before():
    lasts = {
        label: {text.lower() for text, known, earlier in _MESSAGES if earlier and known == label} for label in _ENOUGH
    }
    assert len(lasts["crisis"] & lasts["ok"]) > 30
    assert len(lasts["medical"] & lasts["ok"]) > 10
