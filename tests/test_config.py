from pathlib import Path

import pytest

from qwen_aio import config
from qwen_aio.errors import InvalidSettings


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def test_flags_win_over_environment_over_file_over_defaults(tmp_path, monkeypatch):
    (tmp_path / "qwen_aio.toml").write_text('port = 1001\nkv_mb = 64\nid = "from-file"\n')
    monkeypatch.setenv("QWEN_AIO_PORT", "1002")
    monkeypatch.setenv("QWEN_AIO_KV_MB", "65")
    settings = config.load_settings({"port": "1003"})
    assert (settings.port, settings.kv_mb, settings.id, settings.max_context) == (1003, 65, "from-file", 2048)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"port": "0"}, "port"),
        ({"port": "eighty"}, "port"),
        ({"id": "a b"}, "qwen-prod-01"),
        ({"id": "x" * 65}, "64 letters"),
        ({"precision": "int3"}, "precision"),
        ({"threads": "0"}, "threads"),
        ({"max_context": "1"}, "max_context"),
        ({"max_batch_tokens": "8"}, "max_batch_tokens"),
    ],
)
def test_a_wrong_value_is_told_with_its_name(flags, told):
    with pytest.raises(InvalidSettings, match=told):
        config.load_settings(flags)


def test_an_unknown_key_or_a_broken_file_is_told(tmp_path):
    (tmp_path / "qwen_aio.toml").write_text("prot = 1")
    with pytest.raises(InvalidSettings, match="prot"):
        config.load_settings({})
    (tmp_path / "qwen_aio.toml").write_text("port = ")
    with pytest.raises(InvalidSettings, match=r"qwen_aio\.toml"):
        config.load_settings({})
    with pytest.raises(InvalidSettings, match="no settings file"):
        config.load_settings({}, config=tmp_path / "other.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "192.168.0.7", "fe80::1%eth0", "box.lan"])
def test_listening_beyond_this_machine_must_be_meant(host):
    with pytest.raises(InvalidSettings, match="--insecure"):
        config.check_exposure(config.load_settings({"host": host}))
    config.check_exposure(config.load_settings({"host": host, "insecure": True}))


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
        ("localhost", "localhost"),
        ("LOCALHOST", "localhost"),
        ("localhost.", "localhost"),
    ],
)
def test_loopback_is_known_by_meaning_and_has_one_spelling(host, plain):
    settings = config.load_settings({"host": host})
    config.check_exposure(settings)
    assert settings.host == plain


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            " ",
            "[",
            "[]",
            "[::1",
            "::1]",
            "[[::1]]",
            "[localhost]x",
            "127.1",
            "0",
            "256.0.0.1",
            "1.2.3.4:80",
            ":::",
        ),
        *(
            "http://127.0.0.1",
            "a b",
            "a..b",
            "x" * 64,
            "a." * 130 + "b",
            "straße.lan",
            "local\0host",
            "*",
            "10.0.0.0/8",
        ),
    ],
)
def test_a_host_that_is_none_is_told_in_one_sentence(host):
    with pytest.raises(InvalidSettings, match="neither a host name nor an IP address") as told:
        config.load_settings({"host": host, "insecure": True})
    assert "\n" not in told.value.message


def test_allowed_hosts_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("QWEN_AIO_ALLOWED_HOSTS", "shop.lan, qwen.lan")
    assert config.load_settings({}).allowed_hosts == ("shop.lan", "qwen.lan")


def test_home_is_the_stated_folder_else_the_checkout(tmp_path, monkeypatch):
    settings = config.load_settings({})
    assert config.home() == tmp_path
    assert config.status_dir(settings) == tmp_path / "status"
    assert (config.prompts_dir(settings) / "sentiment" / "task.toml").is_file()
    (tmp_path / "prompts").mkdir()
    assert config.prompts_dir(settings) == tmp_path / "prompts"
    monkeypatch.delenv("QWEN_AIO_HOME")
    assert config.home() == Path.cwd()
