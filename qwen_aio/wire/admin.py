"""`POST /admin/workers/{id}`: a person's word about one worker."""

from __future__ import annotations

from typing import Literal

from qwen_aio.wire.shape import Sent


class AdminRequest(Sent):
    """What shall become of the worker; `force`: also if nobody is left to serve then."""

    state: Literal["ready", "drain", "maint"]
    force: bool = False
