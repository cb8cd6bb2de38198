"""Requests to the engine, and the outputs of a step. Frozen, but for a grammar's progress; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_aio.core import Prompt, Sampling, Segments
from qwen_aio.errors import QwenAioError
from qwen_aio.result import Completion, Scores, TextDelta

if TYPE_CHECKING:  # whoever only starts workers needs no numpy
    from qwen_aio.engine.text.grammar import Grammar


@dataclass(frozen=True)
class Score:
    """Score each of these continuations of the prompt."""

    prompt: Prompt
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Generate:
    """Continue the prompt, after the tokens `resume` of an answer begun by another engine.

    `top_logprobs`: how many likely tokens to list beside each sampled one; None: no log probabilities.
    """

    prompt: Prompt
    sampling: Sampling
    resume: tuple[int, ...] = ()
    top_logprobs: int | None = None
    grammar: Grammar | None = None  # of this one answer, whose progress it keeps


@dataclass(frozen=True)
class Pin:
    """Compute this prefix of many prompts and never evict it."""

    head: Segments


Work = Score | Generate | Pin

FAILED = "computing this request failed; others are not affected, and the server's log has the details"


@dataclass(frozen=True)
class Pinned:
    """A prefix is computed and pinned."""

    num_tokens: int


Item = TextDelta | Completion | Scores | Pinned


@dataclass(frozen=True)
class Output:
    """One thing that a request gets. Every kind but TextDelta is the request's last."""

    request_id: str
    item: Item | QwenAioError

    @property
    def is_last(self) -> bool:
        return not isinstance(self.item, TextDelta)


@dataclass(frozen=True)
class Counters:
    """Work done so far, and the number of sequences running now."""

    running: int = 0
    completed: int = 0
    steps: int = 0
    generated_tokens: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0  # draft tokens that saved a step


@dataclass(frozen=True)
class EngineSnapshot:
    """The state of an engine at one moment; the defaults hold while its model is loading."""

    queue_depth: int = 0
    running: int = 0
    capacity: int = 0  # requests running at the same time
    completed: int = 0  # since its start, like the next two
    steps: int = 0
    generated_tokens: int = 0
    failure: str | None = None  # a sentence, once the engine has stopped
