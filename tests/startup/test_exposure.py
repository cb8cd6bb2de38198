"""A server beyond this machine has keys, or is meant to have none; which key it has itself."""

from __future__ import annotations

import pytest

from qwen_aio.config import load_settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.startup.exposure import check_exposure, key_ring, service_key
from tests.keys import file_of_keys


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", "192.168.0.7", "fe80::1%eth0", "box.lan"])
def test_listening_beyond_this_machine_needs_keys_or_is_meant(host, tmp_path, capsys):
    with pytest.raises(InvalidSettings, match="`qwen-aio keys add NAME`, or add --insecure"):
        check_exposure(load_settings({"host": host}))
    assert capsys.readouterr().err == ""
    check_exposure(load_settings({"host": host, "insecure": True}))
    assert "everybody who reaches" in capsys.readouterr().err
    file_of_keys(tmp_path)
    check_exposure(load_settings({"host": host}))
    assert capsys.readouterr().err == ""


def test_a_server_is_open_only_where_that_is_safe_or_meant(tmp_path):
    assert key_ring(load_settings({})).is_open
    assert key_ring(load_settings({"host": "0.0.0.0", "insecure": True})).is_open
    assert not key_ring(load_settings({"host": "0.0.0.0"})).is_open  # the file went away since the check
    file_of_keys(tmp_path)
    assert not key_ring(load_settings({"host": "0.0.0.0", "insecure": True})).is_open
    assert key_ring(load_settings({"keys_file": str(tmp_path / "other.json")})).is_open


def test_the_own_key_is_read_anew_each_time(tmp_path):
    read = service_key(load_settings({}))
    assert read() == ""
    for content, key in (("abc\n", "abc"), ("a\nb", ""), ("ä", ""), ("x" * 1000, "")):
        (tmp_path / "service.key").write_text(content)
        assert read() == key


@pytest.mark.parametrize("content", [None, "", " \n", "ä"])
def test_a_file_that_was_named_must_have_a_key(tmp_path, content):
    path = tmp_path / "balancer.key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidSettings, match=r"--service-key-file .*balancer\.key"):
        service_key(load_settings({"service_key_file": str(path)}))
