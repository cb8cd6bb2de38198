"""The two kinds of shape: what a caller sends is read strictly, what a server answers so that new fields do no harm."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from qwen_aio.errors import InvalidRequest

JSON_MEDIA = "application/json"
SSE_MEDIA = "text/event-stream"


class Sent(BaseModel):
    """No unknown fields, no null, no "10" for 10, no 1 for true, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, fields: Any) -> Any:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if value is None:
                told = json.dumps(name[:40])
                raise InvalidRequest(f"{told} is null; leave it out to get the default", param=name[:40])
        return fields


class Answered(BaseModel):
    """Unknown fields are ignored: a client may be older than its server."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        """UTF-8, on one line."""
        return self.model_dump_json().encode()
