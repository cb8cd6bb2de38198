"""`POST /admin/workers/{id}`: a person's word about one worker."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from qwen_aio.errors import InvalidRequest
from qwen_aio.wire.request import read_object
from qwen_aio.wire.shape import Sent


class AdminRequest(Sent):
    """What shall become of the worker; `force`: also if nobody is left to serve then."""

    state: Literal["ready", "drain", "maint"]
    force: bool = False

    @classmethod
    def read(cls, body: bytes) -> AdminRequest:
        """Raises InvalidRequest with one sentence about the first mistake."""
        fields = read_object(body)
        try:
            return cls.model_validate(fields)
        except ValidationError as exc:
            param = str(exc.errors(include_url=False, include_context=False)[0]["loc"][0])[:40]
            raise InvalidRequest(
                'send {"state": "ready"}, "drain" or "maint", and "force": true only if it is meant', param=param
            ) from exc
