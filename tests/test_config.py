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
        ({"root_path": "qwen"}, "no path such as /qwen"),
        ({"root_path": "http://qwen.example/"}, "no path such as /qwen"),
        ({"root_path": "/a//b"}, "no path such as /qwen"),
        ({"root_path": "/../a"}, "no path such as /qwen"),
        ({"trusted_proxies": "nginx"}, "10.0.0.0/8"),
        ({"trusted_proxies": "127.0.0.1,10.0.0.1/8"}, "'10.0.0.1/8'"),
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


def test_listening_beyond_this_machine_must_be_meant():
    with pytest.raises(InvalidSettings, match="--insecure"):
        config.check_exposure(config.load_settings({"host": "0.0.0.0"}))
    config.check_exposure(config.load_settings({"host": "0.0.0.0", "insecure": True}))
    config.check_exposure(config.load_settings({"host": "::1"}))


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


def test_what_a_proxy_needs_is_read_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "qwen_aio.toml").write_text('root_path = "/qwen/"\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n')
    settings = config.load_settings({})
    assert (settings.root_path, settings.trusted_proxies) == ("/qwen", ("10.0.0.0/8", "::1"))
    monkeypatch.setenv("QWEN_AIO_TRUSTED_PROXIES", "127.0.0.1, fd00::/8")
    assert config.load_settings({"root_path": "/"}).trusted_proxies == ("127.0.0.1", "fd00::/8")
    assert config.load_settings({"root_path": "/"}).root_path == ""
