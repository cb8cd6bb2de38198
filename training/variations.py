"""The same text as other people would type it: its label stays.

What the product evens out before the model sees a text (full-width letters, shouting, long runs of a
letter; `tasks/normalise.py`) is not varied here but for the mark that it leaves.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from functools import cache

from opencc import OpenCC

from qwen_aio.language import language_of
from training.world.tables import Label

Vary = Callable[[str, random.Random], str]

# Things and places: they say what a text is about, not how its writer feels.
_PLAIN_EMOJI = tuple("📦🚚🚗🏨🍜🍕🍔🥤☕📱💻🎧📷👗👟🎒📚🎬📺🏠🏢⏰📅🌧🌞🌙🐱🐶🌸🎵✈🚄🛒🧾📞💬🔋🔌🧴🍎🥚🐟🛏🚿🚪🪑🎫")
_FELT_EMOJI: Mapping[Label, tuple[str, ...]] = {
    "positive": ("😊", "👍", "❤️", "🎉", "😄", "🥰", "😍", "🤩", "👏", "💯", "😋", "🌹", "😁", "🙌", "👌", "😘"),
    "neutral": ("🙂", "😀", "👀", "🤔", "😐"),
    "negative": ("😡", "😭", "👎", "😞", "💔", "😤", "😢", "🤮", "😠", "🙄", "😒", "💩", "🤬", "😩", "😰", "🥲"),
}
# Apostrophes and hyphens inside a word belong to it.
_MARKS = re.compile(r"(?:[，。！？；：、,.!?;:…~～\"“”（）()]|(?<!\w)['‘’-]|['‘’-](?!\w))+")
_LATIN_WORD = re.compile(r"[A-Za-z]{4,}")
# What an input method offers first for the same sound.
_SOUND_ALIKE = (
    "的得 得的 地的 在再 再在 做作 作做 已以 以已 那哪 哪那 他她 她他 它他 坐座 座坐 带戴 戴带 象像 像象 块快 快块"
    " 买卖 长常 事是 是事 份分 分份 到倒 练炼"
)
# Words that people who speak both languages drop into the other one.
_BOTH = (
    "but:但是 very:很 really:真的 movie:电影 film:片子 phone:手机 service:服务 love:爱 hate:讨厌 good:好 great:很棒"
    " bad:差 happy:开心 price:价格 quality:质量 room:房间 hotel:酒店 staff:员工 friend:朋友 today:今天 tomorrow:明天"
    " recommend:推荐 delivery:快递 size:尺码 color:颜色 work:工作 boss:老板 weekend:周末 story:剧情 boring:无聊"
    " funny:搞笑 disappointed:失望 perfect:完美 cheap:便宜 expensive:贵 tired:累"
    " book:书 screen:屏幕 battery:电池 order:订单"
)
_ENGLISH_OF = {zh: en for en, zh in (pair.split(":") for pair in _BOTH.split())}
_CHINESE_OF = {en: zh for zh, en in _ENGLISH_OF.items()}
_CHINESE_WORD = re.compile("|".join(sorted((word for word in _ENGLISH_OF if len(word) > 1), key=len, reverse=True)))
_ENGLISH_WORD = re.compile(rf"\b(?:{'|'.join(_CHINESE_OF)})\b", re.IGNORECASE)
_HOMOPHONES = {pair[0]: pair[1] for pair in _SOUND_ALIKE.split()}


def varied(text: str, label: Label, rng: random.Random) -> str:
    """`text` in one or two other ways of typing."""
    ways = _WAYS[language_of(text) or "en"]
    for vary in rng.sample(ways, 1 + (rng.random() < 0.3)):
        text = vary(text, rng) or text
    if rng.random() < 0.25:
        text = _with_emoji(text, rng.choice(_PLAIN_EMOJI) * rng.choice((1, 1, 1, 2, 3)), rng)
    elif rng.random() < 0.15:
        text = _with_emoji(text, rng.choice(_FELT_EMOJI[label]) * rng.choice((1, 1, 2, 3)), rng)
    return text


def _with_emoji(text: str, emoji: str, rng: random.Random) -> str:
    return emoji + text if rng.random() < 0.15 else text + rng.choice(("", " ")) + emoji


def _without_marks(text: str, rng: random.Random) -> str:
    return _MARKS.sub(rng.choice((" ", "" if language_of(text) == "zh" else " ")), text).strip()


def _without_end(text: str, _: random.Random) -> str:
    return text.rstrip("。！？.!?~…")


def _with_marks(text: str, rng: random.Random) -> str:
    mark = rng.choice("！!。.…~")
    return text.rstrip("。！？.!?~…") + mark * rng.choice((1, 2, 3, 5))


def _spaced(text: str, rng: random.Random) -> str:
    return _MARKS.sub(lambda found: found[0] + rng.choice(("", " ", "  ", "\n")), text).strip()


def _traditional(text: str, rng: random.Random) -> str:
    return str(_converter(rng.choice(("s2t", "s2tw", "s2twp", "s2hk"))).convert(text))


@cache
def _converter(name: str) -> OpenCC:
    return OpenCC(name)


def _lower(text: str, _: random.Random) -> str:
    return text.lower()


def _capitals(text: str, rng: random.Random) -> str:
    """One sentence or all of it shouted; the product lowers it and marks it."""
    if rng.random() < 0.5:
        return text.upper()
    first, mark, rest = text.partition(". ")
    return first.upper() + mark + rest


def _title(text: str, rng: random.Random) -> str:
    return text.title() if rng.random() < 0.5 else text.capitalize()


def _stretched(text: str, rng: random.Random) -> str:
    """One vowel of a word drawn out, so far that the product shortens it again."""
    vowels = [found.start() for found in re.finditer(r"(?<=[a-z])[aeiou](?=[a-z]*\b)", text)]
    if not vowels:
        return text
    at = rng.choice(vowels)
    return text[:at] + text[at] * rng.randint(3, 8) + text[at:]


def _misspelt(text: str, rng: random.Random) -> str:
    """A letter lost, doubled or swapped in one or two words."""
    for _ in range(rng.randint(1, 2)):
        words = list(_LATIN_WORD.finditer(text))
        if not words:
            return text
        word = rng.choice(words)
        at = rng.randrange(word.start() + 1, word.end() - 1)
        slip = rng.choice((text[at + 1], text[at] * 2 + text[at + 1], text[at + 1] + text[at]))
        text = text[:at] + slip + text[at + 2 :]
    return text


def _homophones(text: str, rng: random.Random) -> str:
    """One or two characters as an input method got them wrong, or one left out."""
    places = [at for at, character in enumerate(text) if character in _HOMOPHONES]
    for at in rng.sample(places, min(len(places), rng.randint(1, 2))):
        text = text[:at] + _HOMOPHONES[text[at]] + text[at + 1 :]
    return text


def _mixed(text: str, rng: random.Random) -> str:
    """One or two words in the other language."""
    is_chinese = language_of(text) == "zh"
    found = list((_CHINESE_WORD if is_chinese else _ENGLISH_WORD).finditer(text))
    chosen = rng.sample(found, min(len(found), rng.randint(1, 2)))
    for word in sorted(chosen, key=lambda word: -word.start()):
        other = f" {_ENGLISH_OF[word[0]]} " if is_chinese else _CHINESE_OF[word[0].lower()]
        text = text[: word.start()] + other + text[word.end() :]
    return text


def _apostrophes(text: str, rng: random.Random) -> str:
    return text.replace("'", "") if rng.random() < 0.5 else text.replace("'", "’")


def _doubled(text: str, rng: random.Random) -> str:
    return text + rng.choice(("", " ", "\n", "，" if language_of(text) == "zh" else ". ")) + text


_WAYS: Mapping[str, tuple[Vary, ...]] = {
    "zh": (
        *(_without_marks, _without_end, _with_marks, _spaced, _traditional, _traditional),
        *(_homophones, _doubled, _mixed),
    ),
    "en": (
        *(_without_marks, _without_end, _with_marks, _spaced, _lower, _lower, _capitals, _title),
        *(_stretched, _misspelt, _apostrophes, _doubled, _mixed),
    ),
}
