"""TLS of a listener, with the certificate that its files have now. TLS 1.2 and up (RFC 8996, 9325)."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from qwen_aio.errors import InvalidSettings

HANDSHAKE_S = 10.0
SHUTDOWN_S = 2.0  # for the other side's goodbye

logger = logging.getLogger(__name__)


class Certificate:
    """Looks at its files for every connection, which takes microseconds, so that a renewed one counts at once.

    Connections keep what they began with. While the files do not go together, the ones before stay.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """PEM files: the chain, the server's own first, and its key without a passphrase. Raises InvalidSettings."""
        self._files = (certificate, key)
        self._stamp = self._stamp_now()
        try:
            self._context = self._load()
        except (OSError, ValueError) as exc:
            raise InvalidSettings(
                f"--tls-certificate {certificate}, --tls-key {key}: {_why(exc)}", param="tls_certificate"
            ) from exc

    def context(self) -> ssl.SSLContext:
        """For a connection that begins now."""
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._load()
                logger.info("certificate read again path=%s", self._files[0])
            except (OSError, ValueError) as exc:
                logger.warning("the certificate has changed and cannot be used, the one before stays: %s", _why(exc))
        return self._context

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # Without a function a key with a passphrase would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
        return context

    def _stamp_now(self) -> tuple[object, ...]:
        """Changes when a file does."""
        return tuple(map(_stamp_of, self._files))


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _why(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"no certificate and its key, in PEM and without a passphrase ({exc.reason or exc})"
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
