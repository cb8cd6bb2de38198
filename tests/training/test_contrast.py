"""Hard sentences: same seed, same text; every frame can be filled and keeps its label."""

import random
import re
from collections import Counter

import pytest

from training import contrast
from training.contrast import LANGUAGES, SHARES, load, sentence, sentences
from training.corpus import is_held_out
from training.world.tables import Language, slot_names, usable

_COUNT = 6000
_DRAWN = tuple(sentences(_COUNT, 0))
_CJK = re.compile(r"[\u4e00-\u9fff]")
_MATTER = {"thing", "this", "aspect", "other_aspect", "flaw", "fact", "fact_also", "at"}
_MATTER |= {"good_clause", "good_also", "bad_clause", "bad_also"}


def test_same_seed_same_texts() -> None:
    assert list(sentences(50, seed=3)) == list(sentences(50, seed=3))
    assert list(sentences(50, seed=3)) != list(sentences(50, seed=4))
    assert len(list(sentences(7, seed=0))) == 7


def test_shares_of_labels_and_languages() -> None:
    labels = Counter(label for _, label in _DRAWN)
    assert all(abs(100 * labels[label] / _COUNT - share) < 3 for label, share in SHARES.items())
    assert 0.45 < sum(bool(_CJK.search(text)) for text, _ in _DRAWN) / _COUNT < 0.55


def test_texts_rarely_repeat_and_never_with_two_labels() -> None:
    assert len({text for text, _ in _DRAWN}) > 0.99 * _COUNT
    assert len(set(_DRAWN)) == len({text for text, _ in _DRAWN})


def test_no_phrase_is_left_unwritten() -> None:
    assert not [text for text, _ in _DRAWN if not text.strip() or re.search(r"[\[\]{}|]", text)]
    assert not [text for text, _ in _DRAWN if re.search(r"@(own|goods|visit|watch|software)\b", text)]


def test_nothing_is_drawn_that_is_measured_with() -> None:
    assert not [text for text, _ in _DRAWN if is_held_out(text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_enough_phrasings_and_many_are_neutral(language: Language) -> None:
    frames = load(language).frames
    assert len(frames) >= 400
    assert len({frame.text for frame in frames}) == len(frames)
    assert sum(frame.label == "neutral" for frame in frames) >= 0.4 * len(frames)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_frame_speaks_of_some_domain_and_its_slots_exist(language: Language) -> None:
    known = load(language)
    lists = set(known.tables.phrases)
    names = _MATTER | lists | {f"other_{name}" for name in lists}
    assert all(frame.domains for frame in known.frames)
    assert set(slot_names([frame.text for frame in known.frames])) <= names
    for domain in known.domains:
        for aspect in domain.aspects:
            said = (*aspect.good, *aspect.bad, *aspect.flaw, *aspect.fact)
            assert set(slot_names(said)) <= lists, said


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_frame_can_be_filled_again_and_again(language: Language) -> None:
    rng = random.Random(0)
    for frame in load(language).frames:
        for _ in range(30):
            assert sentence(language, frame, rng)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_main_lists_are_long(language: Language) -> None:
    known = load(language)
    phrases = known.tables.phrases
    assert all(len(set(phrases[name])) >= 80 for name in ("food", "name", "place"))
    aspects = [aspect for domain in known.domains for aspect in domain.aspects]
    assert len({name for aspect in aspects for name in aspect.names}) >= 75
    assert len({thing for domain in known.domains for thing in domain.things}) >= 80
    assert all(len({said for aspect in aspects for said in getattr(aspect, field)}) >= 100 for field in ("good", "bad"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_clauses_of_one_kind_are_of_no_other(language: Language) -> None:
    said: dict[str, set[str]] = {field: set() for field in ("good", "bad", "flaw", "fact")}
    for aspect in (aspect for domain in load(language).domains for aspect in domain.aspects):
        for field, clauses in said.items():
            clauses.update(usable(getattr(aspect, field), frozenset({"own"})))
            assert usable(getattr(aspect, field), frozenset()), (field, aspect)
    assert sum(len(clauses) for clauses in said.values()) == len(set().union(*said.values()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_others_say_is_not_told_in_the_first_person(language: Language) -> None:
    rng = random.Random(0)
    told = [f for f in load(language).frames if f.is_told and re.fullmatch(r"[^我]*", re.sub(r"\bI\b", "我", f.text))]
    assert told
    texts = [sentence(language, frame, rng) for frame in told for _ in range(20)]
    assert not [text for text in texts if re.search(r"\bwe (were|had|left|waited)\b|我(们|还|睡)", text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_is_one_person_in_a_text(language: Language) -> None:
    rng = random.Random(0)
    frame = next(f for f in load(language).frames if "{other_place}" in f.text and "{place}" in f.text)
    names = set(contrast.load(language).tables.phrases["place"])
    for _ in range(50):
        text = sentence(language, frame, rng).lower()
        assert sum(name.lower() in text for name in names) >= 2
