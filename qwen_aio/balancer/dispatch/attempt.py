"""One worker's turn at a request: its events, and the limits on its silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import KEY_REFUSED
from qwen_aio.errors import AccessDenied, BadReply, CalledOff, KeyRefused, QwenAioError, WorkerStalled
from qwen_aio.next_event import interrupt, next_event
from qwen_aio.result import EngineEvent


class Attempt:
    """Reads the worker's events one by one; until the first one comes it can be called off."""

    def __init__(self, slot: Slot, events: AsyncGenerator[EngineEvent, None], params: Params) -> None:
        self.slot = slot
        self._events = events
        self._params = params
        self._has_begun = False  # an event has come
        self._limit: asyncio.Timeout | None = None  # on the event that is waited for
        self._is_called_off = False

    async def next(self) -> EngineEvent | None:
        """The next event, None at the end. Raises CalledOff, and WorkerStalled after a warning.

        A key that the worker refuses is the balancer's: BadReply, since the client's own was accepted.
        """
        patience_s = self.slot.patience_s
        if self._has_begun:
            patience_s = max(self._params.least_gap_s, self._params.gap_factor * self.slot.usual_gap_s)
        silence_s = 2 * patience_s
        warning = asyncio.get_running_loop().call_later(patience_s, self.slot.stalled)
        self._limit = asyncio.timeout(silence_s)
        try:
            event = await next_event(self._events, self._limit, lambda: self._interrupted(silence_s))
        except (KeyRefused, AccessDenied) as exc:
            raise BadReply(KEY_REFUSED.english) from exc
        finally:
            self._limit = None
            warning.cancel()
        self._has_begun = True
        return event

    def call_off(self) -> None:
        """End the attempt, unless an event has come or it ends already."""
        if not self._has_begun and self._limit is not None and not self._limit.expired():
            self._is_called_off = True
            interrupt(self._limit)

    def _interrupted(self, silence_s: float) -> QwenAioError:
        if self._is_called_off and not self._has_begun:
            return CalledOff(f"{self.slot.id} was put into maintenance")
        return WorkerStalled(f"{self.slot.id} gave nothing for {silence_s:.0f} s")
