"""A prompt whose possible continuations are scored in one pass. Knows no torch, only numbers."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.result import LabelScore, Scores

Question = tuple[tuple[int, ...], tuple[str, ...]]  # prompt tokens and continuations


class DecisionSequence(Sequence):
    """Rows: the prompt, then the rows of the label tree. Finished when all of them are computed."""

    def __init__(
        self, request_id: str, truncated: Truncated, *, texts: tuple[str, ...], tree: LabelTree, arrived_s: float
    ) -> None:
        ids = [*truncated.ids, *tree.tokens]
        super().__init__(request_id, ids, len(truncated.ids), len(ids), arrived_s, truncated.truncation, tree)
        self.question: Question = (tuple(truncated.ids), texts)
        self._texts = texts
        self._tree = tree
        self._positions = [*range(self.num_prompt), *(self.num_prompt + depth for depth in tree.depths)]
        self._logprobs: dict[tuple[int | None, int], float] = {}  # (tree row, next token)

    @property
    def first_logit_row(self) -> int:
        return self.num_prompt - 1

    @property
    def cacheable_ids(self) -> list[int]:
        return self.ids[: min(self.num_computed, self.num_prompt)]  # branches are no prefix of another prompt

    def positions(self, start: int, end: int) -> list[int]:
        return self._positions[start:end]

    def tokens_after(self, row: int) -> list[int]:
        """The tokens whose log probability after `row` is needed."""
        return self._tree.tokens_after(self._tree_row(row))

    def record(self, row: int, logprobs: Mapping[int, float]) -> None:
        """Take the log probabilities of `tokens_after(row)`."""
        for token, logprob in logprobs.items():
            self._logprobs[self._tree_row(row), token] = logprob

    def scores(self, *, now_s: float) -> Scores:
        """The scores, once every row is recorded."""
        labels = tuple(
            LabelScore(text, sum(self._logprobs[step] for step in steps), num_tokens=len(steps))
            for text, steps in zip(self._texts, self._tree.steps, strict=True)
        )
        usage, timings = self.usage(completion_tokens=0), self.timings(first_s=now_s, last_s=now_s)
        return Scores(labels, usage, timings, self.truncation)

    def follow(self, leader: DecisionSequence, *, now_s: float) -> Scores:
        """The scores of a `leader` with the same question: this decision counts as fully cached."""
        self._logprobs = leader._logprobs
        self.num_cached = self.num_prompt
        self.admitted_s = max(self.arrived_s, leader.admitted_s)
        return self.scores(now_s=now_s)

    def take_over(self, other: DecisionSequence) -> None:
        """Continue as `other`, which has the same question."""
        self.request_id, self.truncation, self.arrived_s = other.request_id, other.truncation, other.arrived_s
        self.admitted_s = max(self.admitted_s, self.arrived_s)

    def _tree_row(self, row: int) -> int | None:
        return None if row < self.num_prompt else row - self.num_prompt
