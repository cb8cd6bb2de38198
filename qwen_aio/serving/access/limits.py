"""How much one client may ask for: requests and tokens a minute, by key, or by address where there are no keys.

Token buckets (as in Turner 1986) that hold a minute's worth: a pause earns a burst. What a request costs is known
only when it ends, so a bucket may go into debt, and the next request waits until that is paid. Owned by the event loop.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwen_aio.errors import RateLimited

MINUTE_S = 60.0
MAX_CLIENTS = 10_000  # each with a bucket of its own; more of them at the same time share one
SWEEP_S = 1.0  # between two looks at all of them
TOLERANCE_S = 1e-6  # whoever comes when told to is not sent away for a rounding error
IPV6_SITE = 64  # bits: whoever has one address of a network has all of it


@dataclass(frozen=True)
class Rates:
    """A minute's worth for one client; None: no limit."""

    requests: int | None = None
    tokens: int | None = None


@dataclass
class _Bucket:
    """`level` goes up to `size` within a minute, and below 0."""

    size: int
    level: float
    at: float  # of the clock

    def refill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.size / MINUTE_S)
        self.at = now

    def seconds_to(self, level: float) -> float:
        return max(0.0, (min(level, self.size) - self.level) * MINUTE_S / self.size)


class RateLimits:
    """The buckets of all clients. A full one is forgotten: it says no more than none."""

    def __init__(self, rates: Rates, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sizes = {name: size for name, size in vars(rates).items() if size is not None}
        self._clock = clock
        self._buckets: dict[str, dict[str, _Bucket]] = {}
        self._shared = self._new()
        self._swept_at = clock()

    @property
    def is_on(self) -> bool:
        return bool(self._sizes)

    def admit(self, client: str) -> None:
        """Take one request of `client`. Raises RateLimited, which says when to come back."""
        buckets = self._of(client)
        for name, bucket in buckets.items():
            wait_s = bucket.seconds_to(1.0)
            if wait_s > TOLERANCE_S:
                raise RateLimited(
                    f"no more {name} for now: {bucket.size} a minute are allowed", retry_after_s=math.ceil(wait_s)
                )
        if "requests" in buckets:
            buckets["requests"].level -= 1

    def charge(self, client: str, tokens: int) -> None:
        """What an admitted request took in the end."""
        if "tokens" in self._sizes:
            self._of(client)["tokens"].level -= tokens

    def headers(self, client: str) -> Mapping[str, str]:
        """The usual ones, as at OpenAI; a bucket is full again after `reset`."""
        found = {}
        for name, bucket in self._of(client).items():
            found[f"X-RateLimit-Limit-{name.title()}"] = str(bucket.size)
            found[f"X-RateLimit-Remaining-{name.title()}"] = str(max(0, math.floor(bucket.level)))
            found[f"X-RateLimit-Reset-{name.title()}"] = f"{math.ceil(bucket.seconds_to(bucket.size))}s"
        return found

    def _of(self, client: str) -> dict[str, _Bucket]:
        """The buckets of `client` at this moment."""
        now = self._clock()
        buckets = self._buckets.get(client)
        if buckets is None:
            if len(self._buckets) >= MAX_CLIENTS and now >= self._swept_at + SWEEP_S:
                self._forget_full(now)
            # Not the oldest one's place: it would get rid of its debt by others coming.
            buckets = self._shared if len(self._buckets) >= MAX_CLIENTS else self._new()
            if buckets is not self._shared:
                self._buckets[client] = buckets
        for bucket in buckets.values():
            bucket.refill(now)
        return buckets

    def _forget_full(self, now: float) -> None:
        self._swept_at = now
        for client, buckets in [*self._buckets.items()]:
            for bucket in buckets.values():
                bucket.refill(now)
            if all(bucket.level >= bucket.size for bucket in buckets.values()):
                del self._buckets[client]

    def _new(self) -> dict[str, _Bucket]:
        return {name: _Bucket(size, size, self._clock()) for name, size in self._sizes.items()}


def address_name(address: str) -> str:
    """The client behind an address: itself, or the site of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, IPV6_SITE), strict=False))
    return str(found)


NO_LIMITS = RateLimits(Rates())
