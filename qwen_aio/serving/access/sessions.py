"""Sessions of browsers: what their cookie holds instead of a key. Knows no HTTP.

A token is signed with a secret of this process, for one key and until one time. So it ends with the
key, with the process, and by itself; nothing is kept per session but those that were signed out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable

from qwen_aio.serving.access.keys import Key

SESSION_S = 12 * 3600
_TOKEN = re.compile(r"(?P<ends>[0-9]{1,12})\.(?P<signature>[0-9a-f]{64})")


class Sessions:
    """Those of one server."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` is in unix seconds."""
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._signed_out: dict[str, int] = {}  # token -> when it would have ended
        # Browsers share cookies between all ports of a host: page and balancer need names of their own.
        self.cookie = f"qwen_aio_{secrets.token_hex(4)}"

    def begin(self, key: Key) -> str:
        """The token of a new session."""
        ends = int(self._clock()) + SESSION_S
        return f"{ends}.{self._signature(key, str(ends))}"

    def key_of(self, token: str, keys: Iterable[Key]) -> Key | None:
        """The one of `keys` that `token` stands for; None if it stands for none any more."""
        parts = _TOKEN.fullmatch(token)
        if parts is None or int(parts["ends"]) <= self._clock() or token in self._signed_out:
            return None
        found = None
        for key in keys:
            if hmac.compare_digest(parts["signature"], self._signature(key, parts["ends"])):
                found = key
        return found

    def end(self, token: str) -> None:
        """Sign out; `token` is one that `key_of` knows, so strangers cannot fill the memory."""
        now = self._clock()
        self._signed_out = {each: ends for each, ends in self._signed_out.items() if ends > now}
        self._signed_out[token] = int(token.partition(".")[0])

    def _signature(self, key: Key, ends: str) -> str:
        return hmac.new(self._secret, f"{key.sha256} {ends}".encode(), hashlib.sha256).hexdigest()
