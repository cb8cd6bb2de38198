"""The file of keys: made, changed, damaged, gone; and what a server that is running makes of it."""

from __future__ import annotations

import json
import stat
import sys

import pytest

from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.keys import MAX_FILE_BYTES, KeyFile, new_secret, write_private
from tests.keys import SECRETS, file_of_keys

ENTRY = {"name": "a", "role": "user", "sha256": "0" * 64, "created": ""}


def test_a_key_is_long_random_and_only_its_hash_is_kept(tmp_path):
    secret, file = new_secret(), KeyFile(tmp_path / "deeper" / "keys.json")
    assert len(secret) > 43 and secret != new_secret()
    file.add("alice", "user", secret)
    assert secret not in file.path.read_text()
    found = KeyRing(file.path).find(secret)
    assert found is not None and (found.name, found.role) == ("alice", "user")


@pytest.mark.skipif(sys.platform == "win32", reason="it has other rights")
def test_nobody_else_may_read_what_is_private(tmp_path):
    write_private(tmp_path / "service.key", "x")
    assert stat.S_IMODE((tmp_path / "service.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of_keys(tmp_path).path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../a", "ä", "a\n"])
def test_odd_names_are_refused(tmp_path, name):
    with pytest.raises(InvalidSettings, match="letters, digits"):
        KeyFile(tmp_path / "keys.json").add(name, "user", "x")


def test_a_name_is_given_once_and_an_unknown_one_cannot_be_revoked(tmp_path):
    file = file_of_keys(tmp_path)
    with pytest.raises(InvalidSettings, match="already"):
        file.add("user-1", "admin", "x")
    with pytest.raises(InvalidSettings, match="known: user-1, service-1, admin-1"):
        file.revoke("user-2")


@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            "null",
            "[]",
            "{",
            '{"version": 2, "keys": []}',
            '{"keys": [{}]}',
            '{"keys": [], "more": 1}',
            "[" * 10_000,
        ),
        *(json.dumps({"keys": [ENTRY | odd]}) for odd in ({"role": "root"}, {"sha256": "x"}, {"name": "a b"})),
        json.dumps({"keys": [ENTRY] * 1001}),
        " " * (MAX_FILE_BYTES + 1),
        "\udcff",
    ],
)
def test_a_damaged_file_lets_no_server_start_and_opens_none_that_runs(tmp_path, content):
    file = tmp_path / "keys.json"
    running = KeyRing(file)
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidSettings, match=r"keys\.json"):
        KeyRing(file)
    assert not running.is_open and running.find("") is None


def test_damage_and_loss_leave_the_keys_of_before_and_are_logged_once(tmp_path, caplog):
    file = file_of_keys(tmp_path)
    ring = KeyRing(file.path)
    for change in (lambda: file.path.write_text("{"), file.path.unlink):
        change()
        assert ring.find(SECRETS["user"]) is not None and not ring.is_open
        assert ring.find(SECRETS["user"]) is not None
    assert len(caplog.records) == 2
    assert file_of_keys(tmp_path) and ring.find(SECRETS["admin"]) is not None


def test_a_server_that_may_not_be_open_lets_nobody_in_without_a_file(tmp_path):
    ring = KeyRing(tmp_path / "keys.json", may_be_open=False)
    assert not ring.is_open and ring.find("") is None
    assert KeyRing(tmp_path / "keys.json").is_open


def test_the_last_key_revoked_opens_nothing(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    file.add("alice", "user", "secret")
    file.revoke("alice")
    assert not KeyRing(file.path).is_open
