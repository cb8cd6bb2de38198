"""`POST /admin/workers/{id}`: an operator's command for one worker."""

from __future__ import annotations

from typing import Literal

from qwen_aio.wire.shape import Sent


class AdminRequest(Sent):
    """The new state of the worker; `force`: also if no worker is left to serve."""

    state: Literal["ready", "drain", "maint"]
    force: bool = False
