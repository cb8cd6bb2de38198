"""Where the workers are: `--workers`, parsed.

qwen-1                    an id in status.json
qwen-1=http://host:7861   a remote worker, asked at its /health
dns:name:7861             every address of a name, asked the same way
(nothing)                 every id in status.json
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_aio.config import WORKER_ID, checked_address
from qwen_aio.errors import InvalidSettings

_DNS = re.compile(r"dns:(?P<name>[A-Za-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class DnsName:
    """A host name whose addresses are workers."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """Of all its workers together."""
        return f"http://{self.name}:{self.port}"

    def worker(self, address: str) -> tuple[str, str]:
        """Id and url of the worker at `address`."""
        host = f"[{address}]" if ":" in address else address
        return f"{address.replace(':', '-')}-{self.port}"[-64:], f"http://{host}:{self.port}"


@dataclass(frozen=True)
class Discovery:
    """The workers to look for; if none are named, all in status.json."""

    ids: tuple[str, ...] = ()  # in status.json
    urls: tuple[tuple[str, str], ...] = ()  # id, address
    names: tuple[DnsName, ...] = ()

    @property
    def takes_all(self) -> bool:
        """Are all workers in status.json taken?"""
        return not (self.ids or self.urls or self.names)

    @property
    def named_ids(self) -> tuple[str, ...]:
        """Ids that the setting names; those of a host name come and go."""
        return (*self.ids, *(worker_id for worker_id, _ in self.urls))

    @classmethod
    def parse(cls, parts: Sequence[str]) -> Discovery:
        """Raises InvalidSettings."""
        ids = [part for part in parts if "=" not in part and not part.startswith("dns:")]
        pairs = [part.partition("=") for part in parts if "=" in part]
        names = [part for part in parts if part.startswith("dns:") and "=" not in part]
        found = cls(
            tuple(_checked_id(part) for part in ids),
            tuple((_checked_id(name), checked_address(url, flag="workers")) for name, _, url in pairs),
            tuple(map(_checked_name, names)),
        )
        if len(set(found.named_ids)) < len(found.named_ids):
            raise InvalidSettings("--workers names an id twice", param="workers")
        return found


def _checked_id(text: str) -> str:
    if not WORKER_ID.fullmatch(text):
        raise InvalidSettings(
            f"--workers: {text!r} is no id; use ids (qwen-1), id=http://host:port, or dns:name:port", param="workers"
        )
    return text


def _checked_name(text: str) -> DnsName:
    found = _DNS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise InvalidSettings(f"--workers: {text!r} should look like dns:workers.local:7861", param="workers")
    return DnsName(found["name"], int(found["port"]))
