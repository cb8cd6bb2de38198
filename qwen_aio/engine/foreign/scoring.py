"""The log probabilities of a decision's continuations, after its prompt is computed.

Every continuation is a row of one batch that goes on from copies of the prompt's cache. Shorter rows
are filled up behind their end, where nothing sees the filling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from transformers import DynamicCache

from qwen_aio.engine.foreign.model import ForeignModel
from qwen_aio.engine.sampler import token_logprobs
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence

LOGIT_ROWS = 64  # rows whose logits are computed at once: bounds their memory
FILLING = 0  # a token id


def score_tree(
    decision: DecisionSequence,
    logits: NDArray[np.float32],
    model: ForeignModel,
    cache: DynamicCache,
    *,
    max_copies: int,
) -> None:
    """Record what `decision` needs; `logits` (vocab,) follow its prompt, which `cache` holds and still does after."""
    root = decision.num_prompt - 1
    decision.record(root, token_logprobs(logits, decision.tokens_after(root)))
    paths = _paths(decision)
    step = max(1, min(max_copies, LOGIT_ROWS))
    for start in range(0, len(paths), step):
        _score_paths(decision, paths[start : start + step], model, cache)


def _paths(decision: DecisionSequence) -> list[tuple[int, ...]]:
    """The rows of each continuation, the longest first; those that another one begins with are left out."""
    assert decision.tree is not None
    rows = {tuple(row for row, _ in steps if row is not None) for steps in decision.tree.steps}
    begun = {path[:length] for path in rows for length in range(len(path))}
    return sorted(rows - begun, key=len, reverse=True)


def _score_paths(
    decision: DecisionSequence, paths: list[tuple[int, ...]], model: ForeignModel, cache: DynamicCache
) -> None:
    assert decision.tree is not None
    tokens, longest = decision.tree.tokens, len(paths[0])
    rows = [[tokens[row] for row in path] + [FILLING] * (longest - len(path)) for path in paths]
    batch = model.repeated(cache, len(paths))
    width = max(1, LOGIT_ROWS // len(paths))
    for start in range(0, longest, width):
        chunk = [row[start : start + width] for row in rows]
        logits = model.forward(chunk, batch, num_logits=len(chunk[0]))
        for path, of_path in zip(paths, logits, strict=True):
            for row, of_row in zip(path[start : start + width], of_path, strict=False):
                at = decision.num_prompt + row
                decision.record(at, token_logprobs(of_row, decision.tokens_after(at)))
