"""Bytes of tokens -> text for people, piece by piece.

Whole characters only; text that might be the beginning of a stop string waits until that is decided. White space at
the beginning and at the end of an answer is no part of it: it waits until something visible follows. How the bytes are
split over tokens changes nothing. Knows no token ids and no torch; one per answer, owned by its sequence.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Incremental UTF-8 with stop strings. After `is_stopped` nothing more comes out."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self._space = ""  # behind what was given out, but perhaps the end of the answer
        self._has_begun = False  # something visible was given out
        self.is_stopped = False

    def feed(self, piece: bytes) -> str:
        """Text that is certain now."""
        if self.is_stopped:
            return ""
        text = self._held + self._decoder.decode(piece)
        found = [(text.index(stop) + len(stop), text.index(stop)) for stop in self._stop if stop in text]
        if found:
            # The stop string that is complete first wins: so it does not matter how the text was split.
            self.is_stopped, self._held = True, ""
            return self._trimmed(text[: min(found)[1]])
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return self._trimmed(text[: len(text) - keep])

    def flush(self) -> str:
        """The rest, when no more tokens come. Bytes of an unfinished character are dropped."""
        text, self._held = self._held, ""
        return self._trimmed(text)

    def _trimmed(self, text: str) -> str:
        """What goes out of `text` and the white space before it."""
        text = self._space + text if self._has_begun else text.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._has_begun = self._has_begun or shown != ""
        return shown

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
