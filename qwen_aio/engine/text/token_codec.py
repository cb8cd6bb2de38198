"""What the engine needs of any tokenizer: ours of ChatML, and those of other families."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from qwen_aio.core import Segment

REQUIRED_CONTROLS = ("<|im_start|>", "<|im_end|>")  # of ChatML, which our own engine speaks


class TokenCodec(Protocol):
    """Immutable; safe in any thread."""

    vocab_size: int  # one more than the highest id
    text_ids: Set[int]
    added_ids: frozenset[int]  # control tokens, which no text becomes
    special_texts: tuple[str, ...]  # written out in an answer, they end it

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of the segments, one after another. Raises InvalidRequest."""

    def encode_parts(self, segments: Sequence[Segment]) -> list[list[int]]:
        """Ids of each segment. Raises InvalidRequest."""

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, never of a control token. Raises InvalidRequest."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token, perhaps a partial character; none for what is no text."""

    def token_text(self, token_id: int) -> str:
        """One token for a reader."""
