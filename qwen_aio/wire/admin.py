"""`POST /admin/workers/{id}`: an operator's command for one worker."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from qwen_aio.wire.shape import Sent


class AdminRequest(Sent):
    """The new state of the worker; `force`: also if no worker is left to serve."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "drain"}, {"state": "maint", "force": True}]})

    state: Literal["ready", "drain", "maint"]
    """Ready: it serves; drain: it finishes its work and gets none; maint: its work is called off."""
    force: bool = False
    """Also if no worker is left to serve."""
