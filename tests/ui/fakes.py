"""A service that follows a script, and the events such scripts are made of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

from qwen_aio.core import Capabilities, ContextLimits, Label, Request, Task
from qwen_aio.errors import QwenAioError
from qwen_aio.result import (
    Answer,
    Decided,
    Decision,
    Done,
    Event,
    FinishReason,
    Result,
    TextDelta,
    Timings,
    Truncation,
    Usage,
)

Step = Event | Exception | asyncio.Event | Callable[[], None]
Script = Callable[[Request], Sequence[Step]]

LABELS = (Label("positive", "正面", "😊"), Label("neutral", "中性", "😐"), Label("negative", "负面", "😔"))
TASKS = {
    "sentiment": Task("sentiment", "decision", {"en": "Sentiment", "zh": "情感"}, "", "h1", labels=LABELS),
    "chat": Task("chat", "generation", {"en": "Chat", "zh": "对话"}, "", "h2"),
    "summarize": Task("summarize", "generation", {"en": "Summary", "zh": "摘要"}, "", "h3"),
}
NOT_TRUNCATED = Truncation()
NEGATIVE = Decision(
    task="sentiment",
    label="negative",
    emotion="负面",
    emoji="😔",
    confidence="高",
    best_label="negative",
    probability=0.94,
    scores={"positive": 0.04, "neutral": 0.02, "negative": 0.94},
    abstained=False,
    label_mass=0.99,
    text="【情感】:负面 【置信】:高",
    merged="【😔 LLM 情感判断:负面|高置信】",
    usage=Usage(95, 71, 0),
    timings=Timings(total_ms=88.0),
)


class FakeService:
    """Plays `script` for every request: yields events, raises errors, calls functions, awaits asyncio.Events."""

    def __init__(self, script: Script, *, errors: Sequence[QwenAioError] = ()) -> None:
        self._script = script
        self._errors = list(errors)  # what asking for the capabilities meets first
        self.requests: list[Request] = []
        self.num_open = 0
        self.closed_early = threading.Event()  # a stream was closed before its script ended

    async def capabilities(self) -> Capabilities:
        if self._errors:
            raise self._errors.pop(0)
        return Capabilities(TASKS, ContextLimits(2048, 1024), "tiny", "qwen-1")

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.num_open += 1
        is_finished = False
        try:
            for step in self._script(request):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif callable(step):
                    step()
                else:
                    yield step
            is_finished = True
        finally:
            self.num_open -= 1
            if not is_finished:
                self.closed_early.set()


def tokens(text: str, *, size: int = 4) -> list[TextDelta]:
    """`text` in pieces, as an answer streams in."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return [TextDelta(piece, index=index) for index, piece in enumerate(pieces)]


def done(
    reply: str | None = None,
    *,
    decision: Decision | None = None,
    finish_reason: FinishReason = "stop",
    truncation: Truncation = NOT_TRUNCATED,
    route: str = "rule sentiment.words: 失望",
    worker: str = "qwen-1",
    reply_worker: str = "qwen-1",
) -> Done:
    """The last event of a request."""
    usage, timings = Usage(60, 30, 12), Timings(total_ms=1250.0)
    answer = (
        Answer("chat", reply, finish_reason, usage, timings, truncation, reply_worker) if reply is not None else None
    )
    mode = "sentiment" if decision else "chat"
    return Done(Result("id", mode, route, "h", "tiny", worker, decision, answer, total_ms=1340.0))


def both(reply: str) -> list[Event]:
    """A request that fills both sides."""
    return [Decided(NEGATIVE), *tokens(reply), done(reply, decision=NEGATIVE)]
