"""What a task says about checking and reading a model's words: plain data, read from `prompts/`.

Calibrations and checks of openings are bound to a model by its hash (`models.find.model_sha`): what
is right for one is wrong for another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen_aio.language import Language

NUM_EARLIER_TURNS = 2  # user turns before the message that are checked with it


@dataclass(frozen=True)
class Calibration:
    """How one model's label probabilities are read (calibration.json)."""

    temperature: Mapping[Language, float]  # log probabilities are divided by it before the softmax
    shifts: Mapping[str, float] = field(default_factory=dict)  # label -> what is added to its log probability then
    neutral_below: float | None = None  # in place of the task's
    # Of the task that checks safety: by the language of a text, label -> probability that takes effect.
    thresholds: Mapping[Language, Mapping[str, float]] = field(default_factory=dict)

    def is_used_for(self, language: Language) -> bool:
        """Whether anything is read otherwise than the model says it."""
        return language in self.temperature or bool(self.shifts) or self.neutral_below is not None

    def read(self, logprobs: Mapping[str, float], language: Language) -> dict[str, float]:
        """Label -> probability: softmax of log p / temperature + shift, from the model's log probabilities."""
        temperature = self.temperature.get(language, 1.0)
        return softmax({label: p / temperature + self.shifts.get(label, 0.0) for label, p in logprobs.items()})


def softmax(logits: Mapping[str, float]) -> dict[str, float]:
    """Probabilities that add up to 1."""
    top = max(logits.values())
    weights = {name: math.exp(logit - top) for name, logit in logits.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@dataclass(frozen=True)
class SafetyPolicy:
    """Makes its decision task the one that is asked before any answer (`[safety]` in task.toml)."""

    harmless: str  # the label of everything else
    replies: Mapping[str, Mapping[Language, str]]  # dangerous label, the gravest first -> the answer
    patterns: Mapping[str, tuple[str, ...]]  # dangerous label -> the word rule


@dataclass(frozen=True)
class OpeningCheck:
    """What the sentences of an answer must not be, the first one above all (`[opening]` in task.toml)."""

    model: str  # the hash of the model that needs it; answers of others are not held back
    unfit: Mapping[str, tuple[str, ...]]  # decided label -> words that do not go with it
    never: tuple[str, ...]  # words of label templates
    things: tuple[tuple[str, ...], ...]  # words of one thing each: named only where the conversation has one of them
    instead: Mapping[Language, str]  # the answer if a second draw fails, too
