"""What the thread of service.py drives: an engine that computes step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qwen_aio.core import ContextLimits, Prompt
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.requests import Counters, Output, Work
from qwen_aio.engine.text.grammar import Grammar


class StepEngine(Protocol):
    """Ours is engine.Engine; foreign.engine.TransformersEngine computes other architectures."""

    limits: EngineLimits
    context: ContextLimits

    def clock(self) -> float:
        """Seconds, by the clock of `arrived_s`."""

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to compute or to give out."""

    @property
    def counters(self) -> Counters:
        """Work done so far."""

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of the whole `prompt`, in any thread. Raises InvalidRequest."""

    def decode(self, token_ids: Sequence[int], *, stop: Sequence[str]) -> str:
        """The text of an answer that is certain after these tokens, in any thread."""

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin, in any thread."""

    def compile(self, json_schema: str) -> Grammar:
        """What makes an answer keep to the schema, in any thread, one at a time. Raises InvalidRequest."""

    def add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        """Queue a request. Raises InvalidRequest, ContextTooSmall."""

    def abort(self, request_id: str) -> None:
        """Drop a request in any phase; a finished one is ignored."""

    def step(self) -> list[Output]:
        """Compute a little more and return what it gave."""
