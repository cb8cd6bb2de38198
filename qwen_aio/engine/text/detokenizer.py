"""Bytes of tokens -> text, incrementally.

Gives whole characters only, and holds back text that may be the beginning of a stop string. White
space at both ends of an answer is dropped: it is held back until visible text follows. How bytes
are split into tokens does not matter. Knows no token ids and no torch; each answer owns one.
"""

from __future__ import annotations

import codecs
from collections import abc


class Detokenizer:
    """Incremental UTF-8 with stop strings. Gives no text after `is_stopped`."""

    def __init__(self, stop: abc.Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # decoded text, perhaps the beginning of a stop string
        self._space = ""  # white space after the text so far, perhaps the end of the answer
        self._num_given = 0  # characters given out
        self.is_stopped = False

    @property
    def num_chars(self) -> int:
        """Characters of the text so far, held-back ones included."""
        return self._num_given + len(self._space) + len(self._held)

    def feed(self, piece: bytes) -> str:
        """The text that `piece` makes certain."""
        if self.is_stopped:
            return ""
        text = self._held + self._decoder.decode(piece)
        found = [(text.index(stop) + len(stop), text.index(stop)) for stop in self._stop if stop in text]
        if found:
            # The stop string that is complete first wins, however the text is split.
            self.is_stopped, self._held = True, ""
            return self._trimmed(text[: min(found)[1]])
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return self._trimmed(text[: len(text) - keep])

    def flush(self) -> str:
        """The held-back rest, after the last token. Bytes of a partial character are dropped."""
        text, self._held = self._held, ""
        return self._trimmed(text)

    def _trimmed(self, text: str) -> str:
        """`text` after held-back white space, without white space at its end."""
        text = self._space + text if self._num_given else text.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._num_given += len(shown)
        return shown

    def _undecided(self, text: str) -> int:
        """Length of the longest suffix of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
