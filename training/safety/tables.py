"""The phrase tables of one language: what is said under each label, and the everyday text around it.

LANGUAGE.toml holds phrases by kind, LANGUAGE/LABEL.txt more of them, one a line, in the voices of many people,
LANGUAGE/passages.txt long harmless texts, one a line.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from training.world.tables import Language, Phrasebook

SafetyLabel = Literal["crisis", "medical", "ok"]
SAFETY_LABELS: tuple[SafetyLabel, ...] = ("crisis", "medical", "ok")


@dataclass(frozen=True)
class SafetyTables(Phrasebook):
    """Its `phrases` are the slots that the other phrases draw from."""

    said: Mapping[SafetyLabel, Mapping[str, tuple[str, ...]]]  # by kind: farewell, choking, idiom
    leads: tuple[str, ...]  # in front of a sentence
    tails: tuple[str, ...]  # behind its last word
    asides: tuple[str, ...]  # whole sentences about nothing
    closings: tuple[str, ...]  # a last turn that drops the matter
    urges: tuple[str, ...]  # a last turn that asks for an answer
    pairs: Mapping[SafetyLabel, tuple[tuple[str, str], ...]]  # two turns that mean something together only
    sounds: Mapping[str, tuple[str, ...]]  # a word and how it is written to slip past a filter
    swaps: Mapping[str, tuple[str, ...]]  # a word and what it is in another language

    def phrases_of(self, label: SafetyLabel) -> tuple[str, ...]:
        return tuple(phrase for phrases in self.said[label].values() for phrase in phrases)

    @property
    def all_phrases(self) -> tuple[str, ...]:
        """Everything that is drawn, pairs taken apart, slots left out."""
        said = [phrase for label in SAFETY_LABELS for phrase in self.phrases_of(label)]
        paired = [phrase for pairs in self.pairs.values() for pair in pairs for phrase in pair]
        return (*said, *paired, *self.leads, *self.tails, *self.asides, *self.closings, *self.urges)


@cache
def load(language: Language) -> SafetyTables:
    folder = Path(__file__).parent
    raw = tomllib.loads((folder / f"{language}.toml").read_text(encoding="utf-8"))
    voices = {label: (folder / language / f"{label}.txt").read_text(encoding="utf-8") for label in SAFETY_LABELS}
    return SafetyTables(
        language=language,
        phrases=_lists(raw["slots"]),
        said={label: _lists(raw[label]) | {"voices": tuple(text.splitlines())} for label, text in voices.items()},
        pairs={
            "crisis": tuple((first, last) for first, last in raw["turns"]["crisis_pairs"]),
            "ok": tuple((first, last) for first, last in raw["turns"]["ok_pairs"]),
        },
        leads=tuple(raw["frames"]["leads"]),
        tails=tuple(raw["frames"]["tails"]),
        asides=tuple(raw["frames"]["asides"]),
        closings=tuple(raw["turns"]["closings"]),
        urges=tuple(raw["turns"]["urges"]),
        sounds=_lists(raw["sounds"]),
        swaps=_lists(raw["swaps"]),
    )


def _lists(raw: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(items) for name, items in raw.items()}


def passages(language: Language) -> list[str]:
    """Long texts that hold grave words, and none of anybody in danger."""
    return (Path(__file__).parent / language / "passages.txt").read_text(encoding="utf-8").splitlines()
