"""How a finished text looks on the screen: clean marks for our replies, careless typing for the user.

Knows marks and letters only, not what the text says.
"""

import random
import re

from training.world.tables import Label, Language

_HALF_WIDTH = str.maketrans("，。！？；：", ",.!?;:")
_BARE_START = re.compile(r"^(?:It|They) (?:is|was|are|were) ([a-z])")  # what hasty people leave out
_EMOJI: dict[Label, tuple[str, ...]] = {
    "positive": ("😊", "👍", "❤️", "🎉", "😄", "🥰", "👍👍"),
    "neutral": ("🙂", "😀", "👀"),
    "negative": ("😡", "😭", "👎", "😞", "💔", "😤", "😢"),
}


def clean(text: str, language: Language) -> str:
    """No doubled marks or spaces; English sentences begin with a capital."""
    return _clean_chinese(text) if language == "zh" else _clean_english(text)


def typed(text: str, language: Language, label: Label, rng: random.Random) -> str:
    """The clean text as somebody might really type it."""
    text = _typed_chinese(text, rng) if language == "zh" else _typed_english(text, rng)
    if rng.random() < 0.12 and text[-1] in "!！":
        text += text[-1] * rng.randint(1, 2)
    if rng.random() < 0.07:
        text += rng.choice(_EMOJI[label])
    return text


def _clean_chinese(text: str) -> str:
    text = re.sub(r"[，、；]+(?=[。！？，])", "", text.strip())
    text = re.sub(r"([。！？])[，。]+", r"\1", text)
    return text.strip("，")


def _clean_english(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.!?;:])", r"\1", text)
    text = re.sub(r"([.!?])[.,]+", r"\1", text)
    text = re.sub(r",+(?=[,.!?])", "", text)
    text = re.sub(r"\b([Aa]) (?!one)(?=[aeio]\w|umb)", r"\1n ", text)
    text = re.sub(r"\bi\b(?!\.)", "I", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda found: found[1] + found[2].upper(), text)


def _typed_chinese(text: str, rng: random.Random) -> str:
    style = rng.random()
    if style < 0.45:
        text = text.translate(_HALF_WIDTH)
    elif style < 0.53:
        text = re.sub(r"[，。！]+", " ", text).strip() or text
    if rng.random() < 0.3:
        text = text.rstrip("。！.!") or text
    return text


def _typed_english(text: str, rng: random.Random) -> str:
    if rng.random() < 0.4:
        text = _BARE_START.sub(lambda found: found[1].upper(), text)
    if rng.random() < 0.18:
        text = text.lower()
    if rng.random() < 0.08:
        text = text.replace("'", "")
    if rng.random() < 0.05:
        text = text.replace(",", "")
    if rng.random() < 0.25:
        text = text.rstrip(".!") or text
    return text
