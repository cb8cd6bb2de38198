"""Segments -> token ids and back, with the model's own tokenizer.json.

Text is encoded without parsing special tokens, so a control token in a user's text stays text; ids
of the added vocabulary come from `Control` segments only. Knows no tasks and no context limits.
"""

from __future__ import annotations

import json
from collections import abc
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer
from tokenizers.pre_tokenizers import ByteLevel

from qwen_aio.core import Control, Segment, Text
from qwen_aio.engine.text.thinking import THINK, answer_opening, read_chat_template
from qwen_aio.engine.text.token_codec import REQUIRED_CONTROLS
from qwen_aio.engine.text.token_set import TokenSet
from qwen_aio.errors import InvalidModel, InvalidRequest
from qwen_aio.files import read_text

END_CONTROLS = ("<|im_end|>", "<|endoftext|>")
ANSWER_ROLE = "assistant\n"


@dataclass(frozen=True)
class AddedToken:
    """A token outside the vocabulary of text."""

    content: str
    id: int
    is_special: bool


class Tokenizer:
    """A byte-level BPE tokenizer with ChatML tokens. Immutable; safe in any thread."""

    def __init__(self, specification: str, *, chat_template: str | None = None) -> None:
        """`specification` is the content of a tokenizer.json, `chat_template` says how answers begin.

        Raises ValueError if it is malformed, InvalidModel without the tokens of ChatML.
        """
        self._plain, vocabulary, added = _parsed(specification)
        self._controls = {token.content: token.id for token in added}
        self._control_names = {token.id: token.content for token in added}
        self.added_ids = frozenset(token.id for token in added)
        text_ids = frozenset(vocabulary.values()) - self.added_ids
        self.text_ids: abc.Set[int] = TokenSet(text_ids)
        self.end_ids = frozenset(self._controls[token] for token in END_CONTROLS if token in self._controls)
        self.special_texts = tuple(sorted(token.content for token in added if token.is_special))
        self.vocab_size = max(text_ids | self.added_ids) + 1
        missing = [token for token in REQUIRED_CONTROLS if token not in self._controls]
        if missing:
            raise InvalidModel(f"the tokenizer has no {' and no '.join(missing)}: not a ChatML model")
        if not vocabulary.keys() >= LETTER_BYTES.keys():
            raise InvalidModel("the tokenizer is not byte-level: some text could not be encoded at all")
        opening = answer_opening(chat_template, controls=self._controls)
        self._answer_opening = [token_id for segment in opening for token_id in self.encode_segment(segment)]

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer in `folder`/tokenizer.json. Raises InvalidModel."""
        path = folder / "tokenizer.json"
        try:
            specification = read_text(path)
            template = read_chat_template(folder) if THINK in specification else None  # of others it says nothing
            return cls(specification, chat_template=template)
        except (OSError, ValueError) as exc:
            raise InvalidModel(f"{path} is missing or damaged: {exc}") from exc

    def control_id(self, token: str) -> int:
        """Id of a control token. Raises InvalidModel if the model has no such token."""
        if token not in self._controls:
            raise InvalidModel(f"the tokenizer has no control token {token}")
        return self._controls[token]

    def encode(self, segments: abc.Sequence[Segment]) -> list[int]:
        """Ids of the segments, one after another."""
        return [token_id for part in self.encode_parts(segments) for token_id in part]

    def encode_parts(self, segments: abc.Sequence[Segment]) -> list[list[int]]:
        """Ids of each segment. An answer that begins in the last one begins as all answers of this model."""
        parts = [self.encode_segment(segment) for segment in segments]
        if self._answer_opening and (answer := _begun_answer(segments)) is not None:
            parts[-1] = [*self.encode_text(ANSWER_ROLE), *self._answer_opening, *self.encode_text(answer)]
        return parts

    def encode_segment(self, segment: Segment) -> list[int]:
        """Ids of one segment by itself. Raises InvalidRequest for text that is not valid Unicode."""
        return [self.control_id(segment.token)] if isinstance(segment, Control) else self.encode_text(segment.text)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, never of an added token. Raises InvalidRequest."""
        refuse_surrogates(text)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if self.added_ids.isdisjoint(ids):
            return ids
        # Merges may spell an added token; such a literal is encoded letter by letter.
        return [part for token_id in ids for part in self._split_added(token_id)]

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin; tokens that share a character are one piece."""
        starts = sorted({0, *(start for start, _ in self._plain.encode(text, add_special_tokens=False).offsets)})
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if start < end]

    def decode(self, ids: abc.Sequence[int]) -> str:
        """Text of `ids` without control tokens; partial characters become U+FFFD."""
        return b"".join(self.token_bytes(token_id) for token_id in ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token, perhaps a partial character; none for added and missing tokens."""
        letters = None if token_id in self.added_ids else self._plain.id_to_token(token_id)
        return b"".join(LETTER_BYTES.get(letter) or letter.encode() for letter in letters or "")

    def token_text(self, token_id: int) -> str:
        """One token for a reader: bytes that are no whole character are escaped, a control token is written out."""
        if token_id in self.added_ids:
            return self._control_names[token_id]
        return self.token_bytes(token_id).decode(errors="backslashreplace")

    def _split_added(self, token_id: int) -> list[int]:
        if token_id not in self.added_ids:
            return [token_id]
        letters = self._plain.id_to_token(token_id) or ""
        return [part for letter in letters for part in self._plain.encode(letter, add_special_tokens=False).ids]


def _begun_answer(segments: abc.Sequence[Segment]) -> str | None:
    """The beginning of the model's answer, if the last turn is its own and still open."""
    match segments[-2:]:
        case (Control("<|im_start|>"), Text(text)) if text.startswith(ANSWER_ROLE):
            return text.removeprefix(ANSWER_ROLE)
    return None


def refuse_surrogates(text: str) -> None:
    """Raises InvalidRequest for text that is not valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(f"the text holds a lone surrogate at position {exc.start}", param="text") from exc


def _parsed(specification: str) -> tuple[RustTokenizer, dict[str, int], list[AddedToken]]:
    """A tokenizer without added tokens (no text may become one), its vocabulary, those tokens."""
    try:
        stated = json.loads(specification)
        # A second library object for added tokens would cost 0.5 s of every start, and 60 MB.
        bare = {**stated, "added_tokens": [], "truncation": None, "padding": None}
        plain = RustTokenizer.from_str(json.dumps(bare, ensure_ascii=False))
        vocabulary: dict[str, int] = stated["model"]["vocab"]
        added = [AddedToken(str(it["content"]), int(it["id"]), bool(it["special"])) for it in stated["added_tokens"]]
    except Exception as exc:  # the Rust binding raises nothing narrower
        raise ValueError(f"no tokenizer: {exc!r}") from exc
    owners = {token_id: content for content, token_id in vocabulary.items()}
    for token in added:
        if vocabulary.get(token.content, token.id) != token.id or owners.get(token.id, token.content) != token.content:
            raise ValueError(f"the added token {token.content} and the vocabulary disagree about id {token.id}")
    return plain, vocabulary, added


def _letter_bytes() -> dict[str, bytes]:
    """A byte-level vocabulary writes printable Latin-1 bytes as themselves, others from U+0100."""
    alphabet = set(ByteLevel.alphabet())
    letters = {chr(byte): bytes([byte]) for byte in range(256) if chr(byte) in alphabet}
    hidden = [byte for byte in range(256) if chr(byte) not in letters]
    return letters | {chr(0x100 + number): bytes([byte]) for number, byte in enumerate(hidden)}


LETTER_BYTES = _letter_bytes()
