"""Client disconnects: work goes on only while its client is connected."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from qwen_aio.serving.interruption import result_unless

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientDisconnect, and cancels it, if the client disconnects.

    The body must have been read before: the next message of `receive` is the disconnect.
    """
    return await result_unless(_disconnect(receive), work, error=lambda _: ClientDisconnect())


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
