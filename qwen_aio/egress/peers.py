"""Which addresses a process may reach: this machine's loopback, and peers by exact host and port.

A peer that is given by a name is wherever look-ups of this name led. Values are replaced and never
changed, since any thread may ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_NAME_CHARS = 253
MAX_ADDRESSES = 64  # of one name; the newest are kept


class Peers:
    """The servers that this process asks. The owner adds and removes them; anybody may ask about them."""

    def __init__(self) -> None:
        self._servers: Mapping[str, tuple[str, int]] = MappingProxyType({})  # URL -> host and port
        self._addresses: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # name of a peer -> where it led

    def __repr__(self) -> str:
        return f"<Peers {', '.join(f'{host} {port}' for host, port in sorted(self._servers.values()))}>"

    def add(self, url: str) -> None:
        """The server at `url` may be reached. What is no URL of a server changes nothing."""
        if server := _server_of(url):
            self._servers = {**self._servers, url: server}

    def remove(self, url: str) -> None:
        """It may not be any more."""
        self._servers = {each: server for each, server in self._servers.items() if each != url}
        names = {host for host, _ in self._servers.values()}
        self._addresses = {name: found for name, found in self._addresses.items() if name in names}

    def learn(self, name: str, addresses: Iterable[str]) -> None:
        """A look-up of `name` gave `addresses`."""
        host = plain_host(name)
        if any(host == each for each, _ in self._servers.values()):
            before = self._addresses.get(host, ())
            newest = dict.fromkeys([*map(plain_host, addresses), *before])
            self._addresses = {**self._addresses, host: tuple(newest)[:MAX_ADDRESSES]}

    def may_reach(self, host: object, port: object) -> bool:
        """Whether a connection may go to `host`, an address or a name, at `port`."""
        plain = plain_host(host)
        if is_here(plain):
            return True
        names = [name for name, addresses in self._addresses.items() if plain in addresses]
        return any((each, port) in self._servers.values() for each in (plain, *names))

    def may_look_up(self, host: object) -> bool:
        """Whether a name server may be asked for `host`; an address needs none."""
        return not host or _is_address(plain_host(host)) or self.may_ask_about(host)

    def may_ask_about(self, host: object) -> bool:
        """Whether a name server may be asked for the name of `host`."""
        plain = plain_host(host)
        known = {host for host, _ in self._servers.values()}.union(*self._addresses.values())
        return is_here(plain) or plain in known


def plain_host(host: object) -> str:
    """One spelling for each host: IPv4 in IPv6 as IPv4, no zone, names in lower case and in ASCII."""
    text = bytes(host).decode("latin-1") if isinstance(host, bytes | bytearray) else str(host)
    try:
        address = ip_address(text)
    except ValueError:
        return _plain_name(text)
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address)))
    return str(address)


def is_here(plain: str) -> bool:
    """Whether `plain`, as `plain_host` gives it, never leaves this machine."""
    return ip_address(plain).is_loopback if _is_address(plain) else plain == "localhost"


def _plain_name(text: str) -> str:
    name = text.lower().removesuffix(".")
    if name.isascii() or len(name) > MAX_NAME_CHARS:
        return text if _is_address(name) else name  # 127.0.0.1. is a name, and asked for as one
    try:
        encoded = name.encode("idna").decode()
    except UnicodeError:
        return name
    return name if _is_address(encoded) else encoded


def _is_address(plain: str) -> bool:
    try:
        ip_address(plain)
    except ValueError:
        return False
    return True


def _server_of(url: str) -> tuple[str, int] | None:
    """Host and port of `url`; None if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (plain_host(parts.hostname), port) if parts.hostname and port else None
