"""`traceparent` of W3C Trace Context: which trace a request belongs to.

Passed on unchanged and logged; this program makes no spans of its own.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers

# Version, trace, parent, flags: the four fields that every version begins with, and no more.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(headers: Headers) -> str:
    """The sound one, if exactly one was sent; else empty."""
    sent = headers.getlist("traceparent")
    return sent[0] if len(sent) == 1 and _TRACEPARENT.fullmatch(sent[0]) else ""
