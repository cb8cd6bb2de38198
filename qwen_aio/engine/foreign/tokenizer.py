"""The tokenizer of another family, from its tokenizer.json: byte-level, or of SentencePiece's kind.

Text is encoded by a tokenizer without control tokens, so that none can come of it: every added token
but white space is one, whether the file calls it special or not. The space that some families put in
front of a text is written by `opened`, where that text begins, and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence, Set
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer as RustTokenizer

from qwen_aio.core import Control, Segment, Text
from qwen_aio.engine.text.token_set import TokenSet
from qwen_aio.engine.text.tokenizer import LETTER_BYTES, refuse_surrogates
from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

Opening = Literal["never", "first", "always", "even before a space"]  # where a space is put in front of a text
META_SPACE = "\u2581"  # how SentencePiece writes a space
FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class ForeignTokenizer:
    """Immutable; safe in any thread."""

    special_texts: tuple[str, ...] = ()  # a control token that an answer spells out is text, as in transformers

    def __init__(self, specification: str) -> None:
        """`specification` is the content of a tokenizer.json. Raises ValueError if it is malformed, InvalidModel."""
        stated = _stated(specification)
        self._opening = _opening_of(stated)
        self._is_byte_level, self._has_fallback = _kind_of(stated)
        self._plain, self._added = _plain_of(stated)
        self._contents = {str(token["content"]): int(token["id"]) for token in self._added}
        self._names = {token_id: content for content, token_id in self._contents.items()}
        self._strips = {
            side: frozenset(str(token["content"]) for token in self._added if token.get(side))
            for side in ("lstrip", "rstrip")
        }
        self._special_ids = frozenset(int(token["id"]) for token in self._added if token.get("special"))
        self.added_ids = frozenset(self._names)
        text_ids = frozenset(self._plain.get_vocab(with_added_tokens=True).values()) - self.added_ids
        self.text_ids: Set[int] = TokenSet(text_ids)
        self.vocab_size = max(text_ids | self.added_ids) + 1
        longest_first = sorted(self._contents, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    @classmethod
    def load(cls, folder: Path) -> ForeignTokenizer:
        """The tokenizer in `folder`/tokenizer.json. Raises InvalidModel."""
        path = folder / "tokenizer.json"
        try:
            return cls(read_text(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InvalidModel(f"{path} is missing or damaged: {exc}") from exc

    def control_id(self, token: str) -> int:
        """Id of a control token. Raises InvalidModel if the model has no such token."""
        if token not in self._contents:
            raise InvalidModel(f"the tokenizer has no control token {token}")
        return self._contents[token]

    def control_of(self, token_id: int) -> Control | None:
        """The control token with this id."""
        return Control(self._names[token_id]) if token_id in self._names else None

    def divide_controls(self, written: str) -> list[Segment]:
        """What a chat template has written: its control tokens, and the texts between them."""
        parts = self._control.split(written)
        return [Control(part) if part in self._contents else Text(part) for part in parts if part]

    def settled(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """A whole prompt, with the white space around control tokens as the family has it.

        Some control tokens swallow it; some families open every text, or the first, with a space.
        """
        out: list[Segment] = []
        before: Control | None = None  # the control token just before the text that comes
        for segment in segments:
            if isinstance(segment, Control):
                if segment.token in self._strips["lstrip"]:
                    _strip_end(out)
                out.append(segment)
                before = segment
                continue
            text = segment.text
            if before is not None and before.token in self._strips["rstrip"]:
                text = text.lstrip()
            if text:
                opens = before is not None or not out
                text = self.opened(text, is_first=not out) if opens else text
                out.append(Text(text, can_cut=segment.can_cut))
                before = None
        return tuple(out)

    def opened(self, text: str, *, is_first: bool) -> str:
        """A text that begins a prompt, or stands behind a control token, with the space that the family puts there."""
        opens = self._opening == "even before a space" or (self._opening == "always" and not text.startswith(" "))
        return f" {text}" if opens or (self._opening == "first" and is_first and not text.startswith(" ")) else text

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of the segments; neighbouring texts are encoded as one. Raises InvalidModel, InvalidRequest."""
        ids: list[int] = []
        for is_control, group in groupby(segments, key=lambda segment: isinstance(segment, Control)):
            run = list(group)
            if is_control:
                ids += [token_id for segment in run for token_id in self.encode_segment(segment)]
            else:
                ids += self.encode_text("".join(segment.text for segment in run if isinstance(segment, Text)))
        return ids

    def encode_parts(self, segments: Sequence[Segment]) -> list[list[int]]:
        """Ids of each segment by itself. Raises InvalidModel, InvalidRequest."""
        return [self.encode_segment(segment) for segment in segments]

    def encode_segment(self, segment: Segment) -> list[int]:
        """Ids of one segment. Raises InvalidModel, InvalidRequest."""
        return [self.control_id(segment.token)] if isinstance(segment, Control) else self.encode_text(segment.text)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, never of a control token. Raises InvalidRequest.

        A control token of a single letter has no other spelling: that letter is left out.
        """
        refuse_surrogates(text)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if self.added_ids.isdisjoint(ids):
            return ids
        # A vocabulary may spell a control token, even without its being added; it is encoded letter by letter.
        return [part for token_id in ids for part in self._split_control(token_id)]

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin; tokens that share a character are one piece."""
        starts = sorted({0, *(start for start, _ in self._plain.encode(text, add_special_tokens=False).offsets)})
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True) if start < end]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token, perhaps a partial character; none for special and missing tokens."""
        if token_id in self.added_ids:  # one that is not special is meant to be read, e.g. <think>
            return b"" if token_id in self._special_ids else self._names[token_id].encode()
        letters = self._plain.id_to_token(token_id) or ""
        if letters.isspace():  # an added token of white space is written as it is
            return letters.encode()
        if self._is_byte_level:
            return b"".join(LETTER_BYTES.get(letter) or letter.encode() for letter in letters)
        if self._has_fallback and (byte := FALLBACK_BYTE.fullmatch(letters)):
            return bytes([int(byte[1], 16)])
        return letters.replace(META_SPACE, " ").encode()

    def token_text(self, token_id: int) -> str:
        """One token for a reader: bytes that are no whole character are escaped, a control token is written out."""
        if token_id in self.added_ids:
            return self._names[token_id]
        return self.token_bytes(token_id).decode(errors="backslashreplace")

    def _split_control(self, token_id: int) -> list[int]:
        if token_id not in self.added_ids:
            return [token_id]
        letters = self._names[token_id]
        parts = [part for letter in letters for part in self._plain.encode(letter, add_special_tokens=False).ids]
        return [part for part in parts if part not in self.added_ids]


def _stated(specification: str) -> dict[str, Any]:
    stated = json.loads(specification)
    if not isinstance(stated, dict):
        raise ValueError("it holds no JSON object")
    return stated


def _kind_of(stated: dict[str, Any]) -> tuple[bool, bool]:
    """Whether tokens are written in byte-level letters, and whether some stand for bytes. Raises InvalidModel."""
    decoders = list(_parts_of(stated.get("decoder"), "decoders"))
    names = {str(part["type"]) for part in decoders}
    if "ByteLevel" in names:
        return True, False
    if "Metaspace" in names or any(part.get("content") == " " for part in decoders if part["type"] == "Replace"):
        return False, "ByteFallback" in names
    raise InvalidModel(
        "the tokenizer is neither byte-level nor of SentencePiece's kind, so the bytes of its tokens are not known"
    )


def _opening_of(stated: dict[str, Any]) -> Opening:
    for part in _parts_of(stated.get("normalizer"), "normalizers"):
        if part["type"] == "Prepend":
            return "even before a space"
    for part in _parts_of(stated.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] in ("Metaspace", "ByteLevel"):
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space") else "never")
            if scheme in ("first", "always"):
                return "first" if scheme == "first" else "always"
    return "never"


def _parts_of(part: Any, inner: str) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer.json, and the parts of a Sequence."""
    if isinstance(part, dict):
        yield part
        for each in part.get(inner, []):
            yield from _parts_of(each, inner)


def _plain_of(stated: dict[str, Any]) -> tuple[RustTokenizer, list[dict[str, Any]]]:
    """A tokenizer that knows no control token and opens no text; and the control tokens."""
    blank = [token for token in stated.get("added_tokens") or [] if _is_blank(str(token["content"]))]
    plain = _without(stated, kept=blank)
    vocabulary: dict[str, int] = plain.get_vocab(with_added_tokens=True)
    # Outside the vocabulary of texts, one gets another id as soon as those before it are missing.
    kept = [token for token in blank if vocabulary.get(token["content"]) == token["id"]]
    if kept != blank:
        plain = _without(stated, kept=kept)
    return plain, [token for token in stated.get("added_tokens") or [] if token not in kept]


def _is_blank(content: str) -> bool:
    return content.replace(META_SPACE, " ").isspace()


def _without(stated: dict[str, Any], *, kept: list[dict[str, Any]]) -> RustTokenizer:
    """The stated tokenizer with no added tokens but those that are `kept`. Raises ValueError."""
    bare = {**stated, "added_tokens": kept, "truncation": None, "padding": None, "post_processor": None}
    bare = json.loads(json.dumps(bare))
    normalizer = bare.get("normalizer")
    if isinstance(normalizer, dict) and normalizer["type"] == "Prepend":
        bare["normalizer"] = None
    for part in _parts_of(bare.get("normalizer"), "normalizers"):
        if "normalizers" in part:
            part["normalizers"] = [each for each in part["normalizers"] if each["type"] != "Prepend"]
    for part in _parts_of(bare.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    try:
        return RustTokenizer.from_str(json.dumps(bare))
    except Exception as exc:  # the Rust binding raises nothing narrower
        raise ValueError(f"no tokenizer: {exc!r}") from exc


def _strip_end(segments: list[Segment]) -> None:
    """Remove the white space at the end of the texts just behind the last control token."""
    while segments and isinstance(last := segments[-1], Text):
        text = last.text.rstrip()
        if text:
            segments[-1] = Text(text, can_cut=last.can_cut)
            return
        segments.pop()
