"""The data files, read into plain texts. Knows where a row comes from and whether it may be trained on.

The schema of the files is told in README.md. Rows whose part is not "train" are for looking only, and so is every
text that benchmarks/safety measures with.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SENTIMENT_FILES = ("sentiment_zh.jsonl.gz", "sentiment_en.jsonl.gz")
SUPPORT_FILE = "chat_zh_support.jsonl.gz"
INSTRUCTION_FILES = {"zh": "chat_zh_misc.jsonl.gz", "en": "chat_en_misc.jsonl.gz"}
SPOKEN_REQUESTS_FILE = "prompts_zh_assistant.txt"
NOT_JUDGED = "cped"  # its labels need the picture: trained on a little, never measured with
SAFETY = Path(__file__).parents[1] / "benchmarks" / "safety"

# Not for a small model's mouth, beyond what the chat task's own rule already takes away.
SENSITIVE = re.compile("猥亵|强奸|性侵|家暴|虐待|死|自卑到|抑郁症|抗抑郁|吃药|伤害")
# The world answers these itself: greetings, thanks, who-are-you, feelings.
OWN_GROUND = re.compile("[你您]|谢|再见|拜拜|晚安|早安|心情|难过|开心|无聊|我(好|很|太|真)")


class MissingData(Exception):
    """The folder of training data lacks a file."""


@dataclass(frozen=True)
class Labelled:
    """A text, its label's name, and the set it comes from."""

    text: str
    label: str
    source: str


def check_folder(folder: Path) -> None:
    """Raises MissingData naming the files that are not there."""
    wanted = (*SENTIMENT_FILES, SUPPORT_FILE, *INSTRUCTION_FILES.values(), SPOKEN_REQUESTS_FILE)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise MissingData(f"{folder} lacks {', '.join(missing)}: give the folder of the training data with --data")


def fingerprint(text: str) -> str:
    """What stands for a text in lists that must not hold the text itself."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_fitted_on(text: str) -> bool:
    """Whether a dev row is one of the half that temperatures are fitted on; the other half judges them."""
    return int(fingerprint(text), 16) % 2 == 0


def is_held_out(text: str) -> bool:
    """Whether benchmarks/safety measures with `text`, so that nothing may be trained on it."""
    return fingerprint(text) in _held_out(SAFETY)


@cache
def _held_out(safety: Path) -> frozenset[str]:
    ordinary = (safety / "ordinary.txt").read_text(encoding="utf-8").split()
    written = [
        fingerprint(json.loads(line)["text"])
        for language in ("zh", "en")
        for line in (safety / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return frozenset(ordinary + written)


def sentiment_rows(folder: Path, part: str) -> list[Labelled]:
    """Rows of one part ("train" or "dev") of all sentiment files, in file order."""
    return [
        Labelled(row["text"], row["label"], row["src"])
        for name in SENTIMENT_FILES
        for row in read_rows(folder / name)
        if row["part"] == part and not (part == "train" and is_held_out(row["text"]))
    ]


def support_exchanges(folder: Path, forbidden: Sequence[re.Pattern[str]]) -> list[tuple[str, ...]]:
    """The first one or two exchanges of the supportive dialogues, as (user, assistant, ...); sensitive ones are out."""
    patterns = (*forbidden, SENSITIVE)
    exchanges: list[tuple[str, ...]] = []
    for row in read_rows(folder / SUPPORT_FILE):
        texts = tuple(text for _, text in row["turns"])
        kept = texts[:4] if len(exchanges) % 3 == 0 and len(texts) >= 4 else texts[:2]
        is_grave = any(p.search(t) for p in patterns for t in texts)
        if all(len(text) <= 70 and not is_held_out(text) for text in kept) and not is_grave:
            exchanges.append(kept)
    return exchanges


def requests(folder: Path, language: str) -> list[str]:
    """Questions that lie outside the little world: instructions, and what people ask a phone assistant for."""
    texts = [
        row["turns"][0][1] for row in read_rows(folder / INSTRUCTION_FILES[language]) if row["src"].startswith("alpaca")
    ]
    if language == "zh":
        spoken = (folder / SPOKEN_REQUESTS_FILE).read_text(encoding="utf-8").splitlines()
        texts += [text for text in spoken if len(text) >= 4 and not OWN_GROUND.search(text)]
    limit = 45 if language == "zh" else 110
    return [text for text in texts if 0 < len(text) <= limit and not is_held_out(text)]


def answers(folder: Path, language: str, least: int) -> list[str]:
    """Instructions' answers of `least` characters and more: long texts about anything."""
    rows = read_rows(folder / INSTRUCTION_FILES[language])
    return [text for row in rows for speaker, text in row["turns"] if speaker == "assistant" and len(text) >= least]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a data file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
