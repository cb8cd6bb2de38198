"""What every server is asked: dev rows for decisions, chats shaped by the Azure trace. Knows no HTTP."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

from tokenizers import Tokenizer

from benchmarks.schedule import from_trace
from benchmarks.servers import ROOT
from qwen_aio.core import Prompt, Task, Text
from qwen_aio.tasks.loader import load_task
from qwen_aio.tasks.template import PromptTemplate

SHORTEST, LONGEST = 13, 17  # tokens of a text: about 15
NUM_CHATS = 400


@dataclass(frozen=True)
class Chat:
    """One request for an answer."""

    text: str
    max_tokens: int


@dataclass(frozen=True)
class Texts:
    """The same for every side, in the same order."""

    decisions: tuple[str, ...]
    chats: tuple[Chat, ...]
    sentiment: Task
    chat: Task

    @classmethod
    def load(cls, model_dir: Path, data: Path) -> Texts:
        """Dev rows that are short for the tokenizer in `model_dir`; prompts of our own tasks."""
        tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        rows = sorted({text for path in sorted(data.glob("sentiment_*.jsonl.gz")) for text in _dev_texts(path)})
        short = [text for text in rows if SHORTEST <= len(tokenizer.encode(text).ids) <= LONGEST]
        Random(0).shuffle(short)
        shots = from_trace(data, rate_per_s=1, seconds=NUM_CHATS, seed=0)
        answers = (shot.body for shot in shots if shot.kind == "answer")
        chats = (Chat(str(body["text"]), cast(int, body["max_tokens"])) for body in answers)
        sentiment, chat = (load_task(ROOT / "prompts" / name) for name in ("sentiment", "chat"))
        return cls(tuple(short), tuple(chats), sentiment, chat)

    def decision_prompt(self, text: str) -> str:
        """The very prompt that our worker makes of `text`."""
        return _typed(PromptTemplate(self.sentiment).prompt(text))

    def chat_prompt(self, text: str) -> str:
        return _typed(PromptTemplate(self.chat).prompt(text))


def _dev_texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return [row["text"] for row in rows if row["part"] == "dev"]


def _typed(prompt: Prompt) -> str:
    segments = (*prompt.head, *(segment for turn in prompt.turns for segment in turn), *prompt.body)
    return "".join(segment.text if isinstance(segment, Text) else segment.token for segment in segments)
