"""What a request asks for, in the one form that routes know: a path, and a host in the header."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import Scope

from qwen_aio.errors import InvalidRequest

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


def origin_form(scope: Scope) -> Scope:
    """`scope`, with the host that an absolute URL names in the place of the Host header (RFC 9112, 3.2.2).

    Raises InvalidRequest for what is neither such a URL nor a path.
    """
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if target.startswith(b"/"):
        return scope
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise InvalidRequest("the target of the request is neither a path nor a URL that begins with http://")
    path = found["path"] or b"/"
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {
        **scope,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "headers": [(b"host", found["authority"]), *headers],
    }
