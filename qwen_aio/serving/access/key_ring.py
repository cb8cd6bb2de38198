"""The keys that are valid at this moment, as the file has them. Knows no HTTP. Owned by the event loop.

no file since the start      open to everybody, where that was permitted
the file changes             counts from the next request on
the file is damaged or gone  the keys read before stay valid, and no server opens by that
"""

from __future__ import annotations

import hmac
import logging
from pathlib import Path

from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.access.keys import Key, KeyFile, hash_of

logger = logging.getLogger(__name__)


class KeyRing:
    """Looks at the file for every request, which takes microseconds, so that a revoked key ends at once."""

    def __init__(self, path: Path | None, *, may_be_open: bool = True) -> None:
        """`may_be_open`: without a file everybody may come in. Raises InvalidSettings."""
        self._file = None if path is None else KeyFile(path)
        self._may_be_open = may_be_open
        self._keys: tuple[Key, ...] | None = None  # None: there has been no file yet
        self._stamp: tuple[int, ...] | None = None  # of the file that was read last
        self._read_if_changed()

    @property
    def is_open(self) -> bool:
        """Whether no key is needed now."""
        self._refresh()
        return self._keys is None and self._may_be_open

    @property
    def keys(self) -> tuple[Key, ...]:
        """Those that are valid now."""
        self._refresh()
        return self._keys or ()

    def find(self, secret: str) -> Key | None:
        """The valid key that `secret` is. How long it takes says nothing about any key."""
        wanted, found = hash_of(secret), None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def _refresh(self) -> None:
        try:
            self._read_if_changed()
        except InvalidSettings as exc:
            logger.error("%s; keys that were valid before stay valid", exc.message)
            self._keys = self._keys or ()

    def _read_if_changed(self) -> None:
        """Raises InvalidSettings, once per change."""
        if self._file is None or (stamp := _stamp(self._file.path)) == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            raise InvalidSettings(f"the file of keys {self._file.path} is gone")
        self._keys = self._file.read()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Differs from file to file; None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:  # reading it will say why
        return (exc.errno or 0,)
    return found.st_mtime_ns, found.st_ino, found.st_size
