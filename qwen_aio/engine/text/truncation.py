"""Truncation of a Prompt: the oldest turns are dropped first, then the middle of the cuttable text.

Text that can never fit is shortened before it is encoded, so a megabyte of text costs no more than
a full context. Knows lengths and token ids, no tasks and no slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from qwen_aio.core import Control, Prompt, Segment, Segments, Text
from qwen_aio.engine.text.token_codec import TokenCodec
from qwen_aio.errors import ContextExceeded, ContextTooSmall
from qwen_aio.result import Truncation

CHARS_PER_TOKEN = 16  # no language averages more: longer text cannot fit
MIN_TEXT_TOKENS = 16  # a cut text keeps at least as many, or the request is refused

Cuttable = TypeVar("Cuttable", str, list[int])


@dataclass(frozen=True)
class Truncated:
    """A prompt's token ids, and what was cut."""

    ids: tuple[int, ...]
    truncation: Truncation


def truncate(prompt: Prompt, *, tokenizer: TokenCodec, room: int) -> Truncated:
    """The prompt in at most `room` tokens. Raises ContextExceeded, ContextTooSmall, InvalidRequest."""
    if prompt.must_fit:
        ids = encode_within(prompt.segments, tokenizer, room=room)
        if ids is None:
            raise ContextExceeded(
                f"the prompt has more than the {room} tokens that the context and max_tokens leave for it"
            )
        return Truncated(tuple(ids), Truncation())
    head = tokenizer.encode(prompt.head)
    body = _truncate_body(prompt.body, tokenizer, room=room - len(head))
    kept: list[list[int]] = []  # newest first
    left = room - len(head) - len(body.ids)
    for turn in reversed(prompt.turns):
        ids = encode_within(turn, tokenizer, room=left)
        if ids is None:
            break
        kept.append(ids)
        left -= len(ids)
    turns = [token for ids in reversed(kept) for token in ids]
    return Truncated((*head, *turns, *body.ids), replace(body.truncation, dropped_turns=len(prompt.turns) - len(kept)))


def encode_within(segments: Segments, tokenizer: TokenCodec, *, room: int) -> list[int] | None:
    """The ids of `segments`; None if they are more than `room`."""
    if sum(len(segment.text) for segment in segments if isinstance(segment, Text)) > room * CHARS_PER_TOKEN:
        return None
    ids = tokenizer.encode(segments)
    return ids if len(ids) <= room else None


def _truncate_body(body: Segments, tokenizer: TokenCodec, *, room: int) -> Truncated:
    ids = encode_within(body, tokenizer, room=room)
    if ids is not None:  # as a whole: in other families, tokens may reach from one text into the next
        return Truncated(tuple(ids), Truncation())
    shortened = tuple(_shorten(segment, max_chars=max(room, 0) * CHARS_PER_TOKEN) for segment in body)
    parts = tokenizer.encode_parts(shortened)
    excess = sum(map(len, parts)) - room
    if excess > 0:
        _cut_longest(parts, shortened, excess=excess)
    truncation = Truncation(truncated=excess > 0 or shortened != body)
    return Truncated(tuple(token for part in parts for token in part), truncation)


def _shorten(segment: Segment, *, max_chars: int) -> Segment:
    """The segment without the middle that can never fit."""
    if isinstance(segment, Control) or not segment.can_cut or len(segment.text) <= max_chars:
        return segment
    return replace(segment, text=_without_middle(segment.text, keep=max_chars))


def _cut_longest(parts: list[list[int]], body: Segments, *, excess: int) -> None:
    """Cut `excess` tokens out of the middle of the longest cuttable part."""
    cuttable = [number for number, segment in enumerate(body) if isinstance(segment, Text) and segment.can_cut]
    longest = max(cuttable, key=lambda number: len(parts[number]), default=None)
    keep = 0 if longest is None else len(parts[longest]) - excess
    if longest is None or keep < MIN_TEXT_TOKENS:
        raise ContextTooSmall(
            f"the fixed part of the prompt and the answer leave {max(keep, 0)} tokens for the text, at least"
            f" {MIN_TEXT_TOKENS} are needed; ask for fewer max_tokens or raise --max-context",
            param="max_tokens",
        )
    parts[longest] = _without_middle(parts[longest], keep=keep)


def _without_middle(whole: Cuttable, *, keep: int) -> Cuttable:
    return whole[: (keep + 1) // 2] + whole[len(whole) - keep // 2 :]
