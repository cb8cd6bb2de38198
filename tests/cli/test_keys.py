"""`qwen-aio keys`: the first key is one command, and says how to use it."""

from __future__ import annotations

import re
import stat

import pytest

from qwen_aio.cli.keys import public_host
from qwen_aio.cli.main import main
from qwen_aio.config import Settings
from qwen_aio.serving.access.key_ring import KeyRing


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def added(capsys, *arguments: str) -> str:
    """The key that is printed, which is all of the first line."""
    assert main(["keys", "add", *arguments]) == 0
    return capsys.readouterr().out.splitlines()[0]


def test_the_first_key_is_one_command_that_says_where_and_how(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_ALLOWED_HOSTS", "box.lan")
    assert main(["keys", "add", "alice"]) == 0
    printed = capsys.readouterr().out
    key = printed.splitlines()[0]
    assert "--allowed-hosts box.lan" in printed and "--host 0.0.0.0" in printed
    assert f"curl -s http://box.lan:7860/v1/run -H 'Authorization: Bearer {key}'" in printed
    assert '{"text": ' in printed
    assert KeyRing(tmp_path / "keys.json").find(key).role == "user"


def test_with_the_first_key_comes_that_of_balancer_and_page(tmp_path, capsys):
    added(capsys, "alice")
    path = tmp_path / "service.key"
    own = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing(tmp_path / "keys.json").find(own).role == "service"
    added(capsys, "bob")
    assert path.read_text().strip() == own
    assert main(["keys", "revoke", "service"]) == 0
    added(capsys, "carol")
    assert KeyRing(tmp_path / "keys.json").find(own) is None and path.read_text().strip() != own


def test_keys_are_listed_without_themselves_and_revoked_by_name(tmp_path, capsys):
    user, admin = added(capsys, "alice"), added(capsys, "ops", "--admin")
    assert main(["keys", "list"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+)  (\S+)", printed, re.M) == [("service", "service"), ("alice", "user"), ("ops", "admin")]
    assert user not in printed and admin not in printed
    assert main(["keys", "revoke", "alice"]) == 0
    ring = KeyRing(tmp_path / "keys.json")
    assert ring.find(user) is None and ring.find(admin).role == "admin"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["revoke", "nobody"], "no key named nobody"),
        (["add", "a b"], "letters, digits"),
        (["add", "service"], "made with the first other key"),
        (["list", "--keys-file", "/proc"], "cannot be read"),
        (["add", "alice", "--keys-file", "/proc/keys.json"], "/proc"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, capsys):
    assert main(["keys", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_address_is_one_that_others_can_reach():
    assert public_host(Settings(host="192.168.0.7")) == "192.168.0.7"
    assert public_host(Settings(host="0.0.0.0", allowed_hosts=("qwen.lan",))) == "qwen.lan"
    assert public_host(Settings()) not in ("", "127.0.0.1", "0.0.0.0", "localhost")
