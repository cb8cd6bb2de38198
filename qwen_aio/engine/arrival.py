"""A request becomes a sequence: what both engines check and build alike."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set

from qwen_aio.engine.requests import Generate
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.text.token_codec import TokenCodec
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.errors import InvalidRequest


def tree_of(continuations: Sequence[list[int]], *, room: int) -> LabelTree:
    """The tree of encoded continuations, which take half of `room` at most. Raises InvalidRequest."""
    if not continuations:
        raise InvalidRequest("there is nothing to score: no continuation was given")
    if not all(continuations):
        raise InvalidRequest("an empty continuation cannot be scored")
    tree = LabelTree(continuations)
    if tree.num_rows > room // 2:
        raise InvalidRequest(f"the continuations take {tree.num_rows} tokens; at most {room // 2} do")
    return tree


def answer_of(
    request_id: str,
    work: Generate,
    truncated: Truncated,
    *,
    tokenizer: TokenCodec,
    answer_ids: Set[int],
    end_ids: frozenset[int],
    arrived_s: float,
) -> AnswerSequence:
    """The answer that `work` asks for, with a seed of its own if none is asked for; `answer_ids` may stand in one.

    Raises InvalidRequest if it is resumed after a token that no answer holds.
    """
    unknown = sorted(set(work.resume) - answer_ids)
    if unknown:
        raise InvalidRequest(f"this model's answers hold no token {unknown[0]}", param="resume")
    return AnswerSequence(
        request_id,
        truncated,
        sampling=work.sampling,
        seed=secrets.randbits(63) if work.sampling.seed is None else work.sampling.seed,
        resume=work.resume,
        tokenizer=tokenizer,
        end_ids=end_ids,
        arrived_s=arrived_s,
        top_logprobs=work.top_logprobs,
        grammar=work.grammar,
    )
