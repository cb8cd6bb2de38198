"""A large file's hash is read off its bytes once; any sign that it changed makes it be read again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from qwen_aio.models.known_hashes import LARGE, KnownHashes

LONG_AGO_NS = 10**18


@pytest.fixture
def known(tmp_path: Path) -> KnownHashes:
    return KnownHashes(tmp_path / "state" / "hashes.json")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return written(tmp_path / "model.safetensors", b"a" * LARGE)


def written(path: Path, content: bytes, *, changed_ns: int = LONG_AGO_NS) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(changed_ns, changed_ns))
    return path


def sha(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def forge(known: KnownHashes) -> None:
    """Put another hash into the file, so that it shows whether it was believed."""
    assert known.path is not None
    content = json.loads(known.path.read_text())
    known.path.write_text(json.dumps({name: [*mark, "00" * 32] for name, (*mark, _) in content.items()}))


def test_what_did_not_change_is_not_read_again(known: KnownHashes, large: Path) -> None:
    assert known.digest(large) == sha(large)
    forge(known)
    assert known.digest(large) == bytes(32)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: written(path, b"b" * LARGE, changed_ns=LONG_AGO_NS + 1),
        lambda path: written(path, b"a" * (LARGE + 1)),
        lambda path: (path.rename(path.with_name("old")), written(path, b"b" * LARGE)),
    ],
    ids=["its time", "its size", "another file"],
)
def test_what_changed_is_read_again(known: KnownHashes, large: Path, change) -> None:
    known.digest(large)
    forge(known)
    change(large)
    assert known.digest(large) == sha(large)


def test_a_file_that_has_just_changed_is_not_remembered(known: KnownHashes, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.safetensors"
    fresh.write_bytes(b"a" * LARGE)
    assert known.digest(fresh) == sha(fresh)
    assert known.path is not None and not known.path.exists()


def test_small_files_are_always_read(known: KnownHashes, tmp_path: Path) -> None:
    small = written(tmp_path / "config.json", b"{}")
    assert known.digest(small) == sha(small)
    assert known.path is not None and not known.path.exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"PATH": 3}', '{"PATH": []}', '{"PATH": [1, 2, 3, "zz"]}', "[" * 10**5]
)
def test_a_damaged_file_of_hashes_is_made_anew(known: KnownHashes, large: Path, content: str) -> None:
    assert known.path is not None
    known.path.parent.mkdir()
    known.path.write_text(content.replace("PATH", str(large)))
    assert known.digest(large) == sha(large)
    forge(known)
    assert known.digest(large) == bytes(32)


def test_hashes_of_files_that_are_gone_are_forgotten(known: KnownHashes, large: Path, tmp_path: Path) -> None:
    known.digest(large)
    large.rename(tmp_path / "other")
    known.digest(tmp_path / "other")
    assert known.path is not None and list(json.loads(known.path.read_text())) == [str(tmp_path / "other")]


def test_where_nothing_can_be_written_the_hash_is_right(large: Path, tmp_path: Path) -> None:
    assert KnownHashes(tmp_path / "model.safetensors" / "hashes.json").digest(large) == sha(large)
