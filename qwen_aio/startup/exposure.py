"""Who may reach a server, and how often: keys, limits, the key it has itself, no keys only where that is meant."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qwen_aio.config import Settings, is_loopback, keys_file, service_key_file
from qwen_aio.errors import InvalidSettings
from qwen_aio.files import read_text
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import RateLimits, Rates
from qwen_aio.serving.access.rules import MAX_KEY_CHARS
from qwen_aio.startup.messages import say

GIVEN_UP = (
    "warning: --insecure and no keys: everybody who reaches {host} may ask, read what the dashboard shows, and take "
    "workers out of service; `qwen-aio keys add NAME` ends that at once"
)


def check_exposure(settings: Settings) -> None:
    """Print what --insecure gives up. Raises InvalidSettings for an open server that is not meant to be one."""
    file = keys_file(settings)
    if is_loopback(settings.host) or file.exists():
        return
    if not settings.insecure:
        raise InvalidSettings(
            f"--host {settings.host} would open this server to the network, and there are no keys in {file}: make one "
            "with `qwen-aio keys add NAME`, or add --insecure, which lets everybody who reaches it use all of it. "
            "Also add --allowed-hosts with the name that people will type"
        )
    say(GIVEN_UP.format(host=settings.host), file=sys.stderr)


def key_ring(settings: Settings) -> KeyRing:
    """The keys that the server asks for. Raises InvalidSettings."""
    return KeyRing(keys_file(settings), may_be_open=is_loopback(settings.host) or settings.insecure)


def rate_limits(settings: Settings) -> RateLimits:
    """How much one client may ask for."""
    return RateLimits(Rates(settings.requests_per_minute, settings.tokens_per_minute))


def service_key(settings: Settings) -> Callable[[], str]:
    """Reads the key for the servers behind this one, so that a new one needs no restart; "" without one.

    Raises InvalidSettings if a file was named and has none.
    """
    path = service_key_file(settings)

    def read() -> str:
        try:
            found = read_text(path).strip()
        except (OSError, ValueError):
            return ""
        return found if found.isascii() and found.isprintable() and len(found) <= MAX_KEY_CHARS else ""

    if settings.service_key_file and not read():
        raise InvalidSettings(f"--service-key-file {path}: there is no key in it, or it cannot be read")
    return read
