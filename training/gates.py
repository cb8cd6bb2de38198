"""How well the network does on rows it has never seen, judged as the product judges.

The best of all three labels counts, and below the task's threshold the answer is neutral; on a set without neutral
rows a neutral answer is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training.corpus import Labelled
from training.model import Network
from training.rows import Encoder

BATCH_TOKENS = 8192


class Examiner:
    """Dev rows, encoded once."""

    def __init__(self, rows: Sequence[Labelled], encoder: Encoder, *, task: str = "sentiment") -> None:
        self._rows = rows
        self._task = encoder.tasks[task]
        self._head = torch.tensor(encoder.head(self._task))
        self._labels = [ids[0] for ids in encoder.label_ids(self._task)]
        self._questions = [encoder.question(task, row.text, limit=1024) for row in rows]

    def accuracy(self, network: Network) -> dict[str, float]:
        """Share of right answers per source, and of the mean over them under "all"."""
        answers = self.answers(network)
        right: dict[str, list[bool]] = {}
        for row, answer in zip(self._rows, answers, strict=True):
            right.setdefault(row.source, []).append(answer == row.label)
        return {source: sum(hits) / len(hits) for source, hits in right.items()}

    def answers(self, network: Network) -> list[str]:
        """Name of the label given to each row."""
        probabilities = np.zeros((len(self._rows), len(self._labels)))
        order = sorted(range(len(self._rows)), key=lambda i: len(self._questions[i]))
        while order:
            size = max(1, BATCH_TOKENS // len(self._questions[order[-1]]))
            chosen, order = order[-size:], order[:-size]
            probabilities[chosen] = self._score(network, [self._questions[i] for i in chosen])
        names = [label.name for label in self._task.labels]
        neutral = self._task.neutral or names[0]
        unsure = probabilities.max(1) < self._task.neutral_below
        return [neutral if unsure[i] else names[best] for i, best in enumerate(probabilities.argmax(1))]

    @torch.inference_mode()
    def _score(self, network: Network, questions: list[list[int]]) -> np.ndarray:
        lengths = torch.tensor([len(ids) for ids in questions])
        rows = torch.zeros(len(questions), int(lengths.max()), dtype=torch.long)
        for at, ids in enumerate(questions):
            rows[at, : len(ids)] = torch.tensor(ids)
        hidden = network(self._head, rows)[torch.arange(len(questions)), lengths - 1]
        logits = network.logits(hidden)[:, self._labels]
        return logits.softmax(-1).double().numpy()
