"""An answer's deltas as a client gets them: numbered, each with text, and with all tokens since the one before."""

from __future__ import annotations

from qwen_aio.result import Answer, EngineEvent, SampledToken, TextDelta


class Deltas:
    """Of one answer. Owned by the coroutine that serves it."""

    def __init__(self) -> None:
        self._num_sent = 0
        self._unsent: list[SampledToken] = []  # tokens that have given no text yet

    def take(self, event: EngineEvent) -> TextDelta | None:
        """What the client is to get because of `event`."""
        if isinstance(event, TextDelta):
            self._unsent += event.logprobs
            return self._next(event.text) if event.text else None
        if not isinstance(event, Answer):
            return None
        text = "" if self._num_sent else event.text  # a fixed answer comes without deltas
        return self._next(text) if text or self._unsent else None

    def _next(self, text: str) -> TextDelta:
        delta = TextDelta(text, index=self._num_sent, logprobs=tuple(self._unsent))
        self._num_sent += 1
        self._unsent = []
        return delta
