"""What can be asked of the engine, and what comes out of a step. Frozen, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_aio.core import Chunk, Prompt, Sampling, Scores, Segments
from qwen_aio.errors import QwenAioError


@dataclass(frozen=True)
class Score:
    """How likely is each of these continuations of the prompt?"""

    prompt: Prompt
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Generate:
    """Continue the prompt, behind the tokens `resume` of an answer that was begun elsewhere."""

    prompt: Prompt
    sampling: Sampling
    resume: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pin:
    """Compute this beginning of many prompts and keep it for ever."""

    head: Segments


Work = Score | Generate | Pin

FAILED = "computing this request failed; others are not affected, and the server's log has the details"


@dataclass(frozen=True)
class Pinned:
    """A beginning is computed and stays."""

    num_tokens: int


@dataclass(frozen=True)
class Output:
    """Something a request gets. It is the request's last unless it is a Chunk without a finish reason."""

    request_id: str
    item: Chunk | Scores | Pinned | QwenAioError

    @property
    def is_last(self) -> bool:
        return not isinstance(self.item, Chunk) or self.item.finish_reason is not None


@dataclass(frozen=True)
class Counters:
    """What the engine has done so far, and how many sequences it computes at the moment."""

    running: int = 0
    completed: int = 0
    steps: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0  # guessed ones that spared a step


@dataclass(frozen=True)
class EngineSnapshot:
    """How an engine stands at one moment; the defaults are those of one whose model is still loading.

    `completed`, `steps` and `generated_tokens` count since it was made.
    """

    queue_depth: int = 0
    running: int = 0
    capacity: int = 0  # requests computed at the same time
    completed: int = 0
    steps: int = 0
    generated_tokens: int = 0
    failure: str | None = None  # a sentence, once the engine is gone
