"""A text -> its sentences, as they stand there. Pure functions."""

from __future__ import annotations

import re

MAX_CHARS = 240  # a longer sentence is taken apart at its commas, or else cut
# A full stop ends a sentence only before white space (3.5, example.com), the others always.
_SENTENCE = re.compile(r"(?:[^。！？!?…\n.]|\.(?!\s|$))+(?:[。！？!?….]+[”’\"'」』）)]*)?")
_CLAUSE = re.compile(r"[^，,；;：:]+[，,；;：:]*")


def sentences(text: str) -> list[str]:
    """The sentences of `text` with their end marks, none longer than MAX_CHARS, none without a letter or digit."""
    found = (piece.strip() for sentence in _SENTENCE.findall(text) for piece in _pieces(sentence))
    return [piece for piece in found if any(map(str.isalnum, piece))]


def joined(found: list[str]) -> str:
    """Sentences as one text; a space only where Western marks meet."""
    return "".join(
        sentence if number == 0 or not found[number - 1][-1].isascii() else f" {sentence}"
        for number, sentence in enumerate(found)
    )


def first_sentence(text: str) -> str | None:
    """`text` up to the end of its first sentence; None as long as it may go on."""
    found = _SENTENCE.search(text)
    return text[: found.end()] if found and found.end() < len(text) else None


def _pieces(sentence: str) -> list[str]:
    if len(sentence) <= MAX_CHARS:
        return [sentence]
    pieces = [""]
    for clause in _CLAUSE.findall(sentence):
        if len(pieces[-1]) + len(clause) > MAX_CHARS:
            pieces.append("")
        pieces[-1] += clause
    return [piece[at : at + MAX_CHARS] for piece in pieces for at in range(0, len(piece), MAX_CHARS)]
