"""TLS as the settings want it: of this server, and towards others."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from qwen_aio.config import Settings, is_loopback
from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.transport.tls import Certificate

TlsTo = Callable[[str], ssl.SSLContext | None]  # url -> how its server is checked; None: as the system does


def certificate(settings: Settings) -> Certificate | None:
    """That of this server; None without TLS. Raises InvalidSettings."""
    if settings.tls_certificate is None:
        if settings.tls_key is not None:
            raise InvalidSettings("--tls-key goes with --tls-certificate", param="tls_key")
        return None
    return Certificate(settings.tls_certificate, settings.tls_key or settings.tls_certificate)


def tls_to(settings: Settings) -> TlsTo:
    """How other servers are checked: with the system's authorities, and those of --tls-ca.

    This machine's own servers are not, where they have a certificate: it is for the name that others use, and
    between processes of one machine there is nobody to be told from. Raises InvalidSettings.
    """
    checking = _checking(settings)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    def context(url: str) -> ssl.SSLContext | None:
        host = urlsplit(url).hostname or ""
        is_own = settings.tls_certificate is not None and (is_loopback(host) or host == settings.host)
        return trusting if is_own else checking

    return context


def _checking(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_ca is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(settings.tls_ca)
    except OSError as exc:
        raise InvalidSettings(f"--tls-ca {settings.tls_ca}: no certificates in PEM ({exc.strerror or exc})") from exc
    return context
