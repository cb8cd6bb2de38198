"""For every server: its URL, its host names, the reverse proxies it trusts."""

from __future__ import annotations

import ipaddress

from qwen_aio.config import Settings
from qwen_aio.serving.transport.proxied import ProxySettings


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """The names besides loopback that the server answers to."""
    own = () if settings.host in ("0.0.0.0", "::") else (settings.host,)
    return (*settings.allowed_hosts, *own)


def proxy_settings(settings: Settings) -> ProxySettings:
    """The reverse proxy in front of the server."""
    return ProxySettings(settings.root_path, tuple(map(ipaddress.ip_network, settings.trusted_proxies)))


def url_of(host: str, port: int, *, has_tls: bool = False) -> str:
    """The URL on this machine of a server that listens on `host`."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http{'s' if has_tls else ''}://{f'[{name}]' if ':' in name else name}:{port}"


def own_url(settings: Settings, port: int) -> str:
    """The URL on this machine of the server that these settings are for, on `port`."""
    return url_of(settings.host, port, has_tls=settings.tls_certificate is not None)
