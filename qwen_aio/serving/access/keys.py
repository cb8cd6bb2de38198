"""The keys of clients: names, roles and hashes, in one file. Knows no HTTP.

A key is 256 random bits, so one SHA-256 is enough: nobody can try that many, and a slow hash with a
salt, which protects passwords that people choose, would only make every request slower.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_aio.config import WORKER_ID
from qwen_aio.errors import InvalidSettings
from qwen_aio.files import decode_text, replacing

KeyRole = Literal["user", "service", "admin"]  # each may do what those before it may
SERVICE: KeyRole = "service"  # the key that balancer and page send to the servers behind them
ROLES: tuple[KeyRole, ...] = get_args(KeyRole)
MAX_KEYS = 1000
MAX_FILE_BYTES = 1_000_000
LOCK_S = 5.0


class Key(BaseModel):
    """What the file says of a key; the key itself is nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{WORKER_ID.pattern}$")
    role: KeyRole
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str = Field(max_length=40)  # UTC

    def may(self, role: KeyRole) -> bool:
        """Whether it may do what needs `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[Key, ...] = Field((), max_length=MAX_KEYS)


class KeyFile:
    """The file of keys. One process at a time changes it; any number reads it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """All keys, none if there is no file. Raises InvalidSettings."""
        try:
            content = self.path.read_bytes()
            if len(content) > MAX_FILE_BYTES:
                raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
            return _Content.model_validate_json(decode_text(content)).keys
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise InvalidSettings(f"the keys in {self.path} cannot be read: {exc.strerror}") from exc
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InvalidSettings(f"the keys in {self.path} are not valid: {place} {first['msg']}") from exc
        except ValueError as exc:
            raise InvalidSettings(f"the keys in {self.path} are not valid: {exc}") from exc

    def add(self, name: str, role: KeyRole, secret: str) -> None:
        """Admit `secret` from now on. Raises InvalidSettings."""
        if not WORKER_ID.fullmatch(name):
            raise InvalidSettings("a key's name has 1 to 64 letters, digits, dots and dashes, e.g. alice")
        with self._locked():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise InvalidSettings(f"there is a key named {name} already; revoke it first, or choose another name")
            if len(keys) >= MAX_KEYS:
                raise InvalidSettings(f"there are {MAX_KEYS} keys already; revoke one first")
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._write((*keys, Key(name=name, role=role, sha256=hash_of(secret), created=created)))

    def revoke(self, name: str) -> None:
        """Admit the key no more. The file stays, even without keys: an open server is asked for by deleting it.

        Raises InvalidSettings.
        """
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise InvalidSettings(f"there is no key named {name}; known: {names}")
            self._write(left)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=LOCK_S, fallback_to_soft=False):
                yield
        except OSError as exc:  # also if another process keeps the lock
            raise InvalidSettings(f"the keys in {self.path} cannot be changed: {exc}") from exc

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_private(self.path, _Content(keys=keys).model_dump_json(indent=1) + "\n")


def new_secret() -> str:
    """A new key."""
    return f"qwen-aio-{secrets.token_urlsafe(32)}"


def hash_of(secret: str) -> str:
    """As the file has it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def write_private(path: Path, text: str) -> None:
    """Replace what is in `path`, for nobody but this user to read. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with replacing(path) as partial, os.fdopen(os.open(partial, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
