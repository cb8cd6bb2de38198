"""Who may use which route: the rule of every path, and the key of every request.

A key comes as `Authorization: Bearer KEY`; a browser has a session instead (serving/login.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.routing import compile_path

from qwen_aio.errors import AccessDenied, KeyRefused, QwenAioError
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.keys import Key, KeyRole
from qwen_aio.serving.access.limits import address_name
from qwen_aio.serving.access.sessions import Sessions
from qwen_aio.wire.engine import ENGINE_PATH, TOKENS_PATH

LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
MAX_KEY_CHARS = 200
# The role that each route of any server needs; None: no key. A test finds routes that are missing.
RULES: Mapping[str, KeyRole | None] = {
    "/livez": None,
    "/readyz": None,
    LOGIN_PATH: None,
    LOGOUT_PATH: None,
    "/": "user",
    "/health": "user",
    "/openapi.json": "user",
    "/docs": "user",
    "/metrics": "user",
    "/status": "user",
    "/history": "user",
    "/events": "user",
    "/static/{name}": "user",
    "/tokenize": "user",
    "/v1/run": "user",
    "/v1/tasks": "user",
    "/v1/chat/completions": "user",
    "/v1/completions": "user",
    "/v1/models": "user",
    "/v1/models/{model:path}": "user",
    "/v1/{rest:path}": "user",  # where nothing lives
    "/admin/workers/{id}": "admin",
    ENGINE_PATH: "service",
    TOKENS_PATH: "service",
}
# Where a request makes a server compute; the last one is the page's.
COMPUTING = frozenset({"/v1/run", "/v1/chat/completions", "/v1/completions", "/tokenize", "/gradio_api/queue/join"})
OTHERS: KeyRole = "user"  # paths of the page below "/", and those where nothing lives
_PATTERNS: tuple[tuple[re.Pattern[str], KeyRole | None], ...] = tuple(
    (compile_path(path)[0], role) for path, role in RULES.items()
)


def rule_of(path: str) -> KeyRole | None:
    """The role that `path` needs."""
    # `match`, as the router does: a line break at the end is no other path to it, so it must be none here.
    return next((role for pattern, role in _PATTERNS if pattern.match(path)), OTHERS)


def is_limited(request: Request) -> bool:
    """Whether `request`, which has passed, counts for the limits of its client: it makes a server compute.

    Not a service's: it counts its own clients.
    """
    key: Key | None = request.scope["state"]["key"]
    return request.method == "POST" and request.scope["path"] in COMPUTING and not (key and key.role == "service")


def client_of(request: Request) -> str:
    """Whose limits count: the key's, else the address's."""
    key: Key | None = request.scope["state"]["key"]
    return f"key {key.name}" if key else address_name(request.client.host if request.client else "")


class Access:
    """Checks requests against the keys of this server."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self.sessions = Sessions()

    def check(self, request: Request) -> None:
        """Put into its state: `key`, if any, and `is_admitted`, which says later whether this would still pass.

        Raises KeyRefused, AccessDenied.
        """
        path, key = request.scope["path"], self._key_of(request)

        def is_admitted() -> bool:
            return self._refusal(path, self._key_of(request)) is None

        request.scope["state"] |= {"key": key, "is_admitted": is_admitted}
        if (refusal := self._refusal(path, key)) is not None:
            raise refusal

    def _refusal(self, path: str, key: Key | None) -> QwenAioError | None:
        needed = rule_of(path)
        if needed is None or self.keys.is_open:
            return None
        if key is None:
            return KeyRefused("this server needs a key that it knows: send it as Authorization: Bearer KEY")
        if not key.may(needed):
            return AccessDenied(f"the key {key.name} is one for {key.role}s; this needs one with the role {needed}")
        return None

    def _key_of(self, request: Request) -> Key | None:
        """The valid key that comes with `request`; none is looked for while the server is open."""
        if self.keys.is_open:
            return None
        stated = request.headers.getlist("authorization")
        if not stated:
            return self.sessions.key_of(request.cookies.get(self.sessions.cookie, ""), self.keys.keys)
        scheme, _, secret = stated[0].partition(" ")
        secret = secret.strip()
        is_sound = len(stated) == 1 and scheme.lower() == "bearer" and 0 < len(secret) <= MAX_KEY_CHARS
        return self.keys.find(secret) if is_sound else None


OPEN_ACCESS = Access(KeyRing(None))
