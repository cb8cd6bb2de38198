"""Texts -> token ids, exactly as the product encodes them, with a mark on the tokens the model has to say.

A row is everything behind the system head: earlier turns, the user's block, the answer. Knows no batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Control, Message, Segment, Task, Text
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.tasks.template import PromptTemplate

IM_END = Control("<|im_end|>")
ASSISTANT = "assistant\n"  # the role's name: written by code, never by the model


@dataclass(frozen=True)
class Row:
    """Ids of one example; `answer[i]` says that ids[i] is the model's to say.

    `soft`: of a decision, the wanted probability of each label after the last id, in the task's order.
    """

    ids: tuple[int, ...]
    answer: tuple[bool, ...]
    soft: tuple[float, ...] = ()


class Encoder:
    """The product's prompts and encoding, turned into rows."""

    def __init__(self, tokenizer: Tokenizer, tasks: Mapping[str, Task]) -> None:
        self._tokenizer = tokenizer
        self.tasks = tasks
        self._templates = {name: PromptTemplate(task) for name, task in tasks.items()}
        self._role_tokens = len(tokenizer.encode_text(ASSISTANT))

    def with_task(self, task: Task) -> Encoder:
        """The same with `task` added, or in the place of the one of its name."""
        return Encoder(self._tokenizer, {**self.tasks, task.name: task})

    def head(self, task: Task) -> list[int]:
        """Ids of the task's system turn."""
        return self._tokenizer.encode(PromptTemplate(task).head)

    def label_ids(self, task: Task) -> list[list[int]]:
        """Ids of each label's text, in the task's order."""
        return [self._tokenizer.encode_text(label.text) for label in task.labels]

    def question(self, task: str, text: str, *, limit: int) -> list[int]:
        """Ids of a decision's body; a text of more than `limit` tokens loses its middle, as in the product."""
        return self._cut(self._templates[task].prompt(text).body, limit)

    def decision(self, task: str, text: str, soft: Mapping[str, float], *, limit: int) -> Row:
        """A question and the wanted probability of each label by its name; those left out have none."""
        asked = self.question(task, text, limit=limit)
        wanted = tuple(soft.get(label.name, 0.0) for label in self.tasks[task].labels)
        return Row(ids=tuple(asked), answer=(False,) * len(asked), soft=wanted)

    def conversation(self, task: str, texts: Sequence[str], *, limit: int, feeling: str | None = None) -> Row:
        """`texts` are user, assistant, user, ..., assistant; every turn of the assistant is the model's to say."""
        assert texts and len(texts) % 2 == 0
        ids: list[int] = []
        answer: list[bool] = []
        for segment in self.prompt_segments(task, texts[:-1], feeling=feeling):
            part = self._cut((segment,), limit)
            ids += part
            answer += self._marks(segment, part, follows_reply=bool(answer) and answer[-1])
        reply = self._tokenizer.encode((Text(texts[-1]), IM_END))
        return Row(ids=(*ids, *reply), answer=(*answer, *[True] * len(reply)))

    def _marks(self, segment: Segment, part: Sequence[int], *, follows_reply: bool) -> list[bool]:
        """An earlier reply is the model's to say, from behind the role's name to the control token that ends it."""
        if segment == IM_END:
            return [follows_reply]
        if isinstance(segment, Text) and segment.text.startswith(ASSISTANT):
            return [i >= self._role_tokens for i in range(len(part))]
        return [False] * len(part)

    def prompt_segments(self, task: str, texts: Sequence[str], *, feeling: str | None = None) -> tuple[Segment, ...]:
        """Everything between the system head and the reply; `texts` end with the user."""
        roles = ("user", "assistant")
        history = [Message(roles[i % 2], text) for i, text in enumerate(texts[:-1])]  # type: ignore[arg-type]
        prompt = self._templates[task].prompt(texts[-1], history=history, feeling=feeling)
        return (*(segment for turn in prompt.turns for segment in turn), *prompt.body)

    def _cut(self, segments: Iterable[Segment], limit: int) -> list[int]:
        ids: list[int] = []
        for segment in segments:
            part = self._tokenizer.encode_segment(segment)
            if isinstance(segment, Text) and segment.can_cut and len(part) > limit:
                part = part[: limit // 2] + part[-(limit - limit // 2) :]
            ids += part
        return ids


@dataclass(frozen=True)
class Rows:
    """Many rows, end to end: row i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[np.uint16]
    answer: NDArray[np.bool_]
    soft: NDArray[np.float32]  # (rows, labels); no column where nothing is decided
    offsets: NDArray[np.int64]
    sources: NDArray[np.str_]  # names, each once
    source: NDArray[np.intp]  # where each row's source stands in `sources`

    @classmethod
    def collect(cls, rows: Iterable[tuple[Row, str]]) -> Rows:
        """From pairs of row and source."""
        kept = list(rows)
        sources, source = np.unique([source for _, source in kept], return_inverse=True)
        lengths = [0, *(len(row.ids) for row, _ in kept)]
        return cls(
            ids=np.array([i for row, _ in kept for i in row.ids], dtype=np.uint16),
            answer=np.array([a for row, _ in kept for a in row.answer], dtype=np.bool_),
            soft=np.array([row.soft for row, _ in kept], dtype=np.float32),
            offsets=np.cumsum(lengths, dtype=np.int64),
            sources=sources,
            source=source,
        )

    @classmethod
    def load(cls, path: Path) -> Rows:
        with np.load(path) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **vars(self))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def repeats(self, by_source: Mapping[str, float]) -> NDArray[np.float64]:
        """How often each row is seen, given how often a row of each source is."""
        return np.array([by_source[name] for name in self.sources])[self.source]

    def __len__(self) -> int:
        return len(self.source)
