from pathlib import Path

import pytest

from qwen_aio import config
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine import folders


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.delenv("QWEN_AIO_OFFLINE")


def test_flags_win_over_environment_over_file_over_defaults(tmp_path, monkeypatch):
    (tmp_path / "qwen_aio.toml").write_text('port = 1001\nkv_mb = 64\nid = "from-file"\n')
    monkeypatch.setenv("QWEN_AIO_PORT", "1002")
    monkeypatch.setenv("QWEN_AIO_KV_MB", "65")
    settings = config.load_settings({"port": "1003"})
    assert (settings.port, settings.kv_mb, settings.id, settings.max_context) == (1003, 65, "from-file", 2048)


def test_a_variable_may_be_written_small(monkeypatch):
    monkeypatch.setenv("qwen_aio_kv_mb", "65")
    assert config.load_settings({}).kv_mb == 65


@pytest.mark.parametrize(
    ("flags", "message"),
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
def test_a_wrong_value_is_reported_with_its_name(flags, message):
    with pytest.raises(InvalidSettings, match=message):
        config.load_settings(flags)


def test_an_unknown_key_or_a_broken_file_is_reported(tmp_path):
    (tmp_path / "qwen_aio.toml").write_text("prot = 1")
    with pytest.raises(InvalidSettings, match="prot"):
        config.load_settings({})
    (tmp_path / "qwen_aio.toml").write_text("port = ")
    with pytest.raises(InvalidSettings, match=r"qwen_aio\.toml"):
        config.load_settings({})
    with pytest.raises(InvalidSettings, match="no settings file"):
        config.load_settings({}, config=tmp_path / "other.toml")


def loaded() -> dict[str, object]:
    return config.load_settings({}).model_dump()


@pytest.mark.parametrize("name", ["PORT", "BALANCER_PORT", "WORKER_PORT"])
@pytest.mark.parametrize("link", ["tcp://10.0.0.1:8000", "udp://10.0.0.1:53", "sctp://[fd00::1]:8000"])
def test_a_link_of_kubernetes_is_no_setting_which_is_said_once(monkeypatch, caplog, name, link):
    monkeypatch.setenv(f"QWEN_AIO_{name}", link)
    assert loaded() == loaded() == config.Settings().model_dump()
    (warning,) = caplog.messages
    assert f"QWEN_AIO_{name}={link} is ignored" in warning
    assert "enableServiceLinks: false" in warning


@pytest.mark.parametrize(
    "value",
    [
        *("http://10.0.0.1:8000", "tcp://qwen:8000", "tcp://10.0.0.1", "tcp://10.0.0.1:0", "tcp://10.0.0.1:99999"),
        *(
            "tcp://10.0.0.1:8000/",
            "tcp://10.0.0.1:8000 ",
            "tcp://a@10.0.0.1:80",
            "tcp://fd00::1:80",
            "tcp://[1.2.3.4]:80",
        ),
        *("TCP://10.0.0.1:80", "tcp://10.0.0.1:080", "tcp://", "10.0.0.1:8000", "-1"),
    ],
)
def test_what_only_resembles_a_link_is_refused(monkeypatch, value):
    monkeypatch.setenv("QWEN_AIO_PORT", value)
    with pytest.raises(InvalidSettings, match="port: "):
        config.load_settings({})


def test_the_other_variables_of_a_service_do_no_harm(monkeypatch, caplog):
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.0.0.1",
        "HOST_PORT": "tcp://10.0.0.2:8000",
        "MODEL_SERVICE_HOST": "10.0.0.3",
    }.items():
        monkeypatch.setenv(f"QWEN_AIO_{name}", value)
    assert loaded() == config.Settings().model_dump()
    assert caplog.messages == []


def test_a_byte_order_mark_in_the_settings_file_is_read_away(tmp_path):
    (tmp_path / "qwen_aio.toml").write_text("kv_mb = 64", encoding="utf-8-sig")
    assert config.load_settings({}).kv_mb == 64


def test_a_settings_file_in_another_encoding_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "qwen_aio.toml").write_text("kv_mb = 64", encoding="utf-16")
    with pytest.raises(
        InvalidSettings, match=r"qwen_aio\.toml is not valid: it is saved as UTF-16 .* save it as UTF-8"
    ):
        config.load_settings({})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "192.168.0.7", "fe80::1%eth0", "box.lan"])
def test_what_is_not_loopback_is_known(host):
    assert not config.is_loopback(config.load_settings({"host": host}).host)


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
    assert config.is_loopback(settings.host)
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
def test_a_host_that_is_none_is_reported_in_one_sentence(host):
    with pytest.raises(InvalidSettings, match="neither a host name nor an IP address") as caught:
        config.load_settings({"host": host, "insecure": True})
    assert "\n" not in caught.value.message


def test_allowed_hosts_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("QWEN_AIO_ALLOWED_HOSTS", "shop.lan, qwen.lan")
    assert config.load_settings({}).allowed_hosts == ("shop.lan", "qwen.lan")


def test_a_tilde_in_the_file_or_a_variable_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "qwen_aio.toml").write_text('model = "~/m"\nstatus_dir = "~/s"\nprompts_dir = "~/p"\n')
    settings = config.load_settings({})
    assert (settings.model, settings.status_dir) == (str(tmp_path / "me" / "m"), tmp_path / "me" / "s")
    assert config.prompts_dir(settings) == tmp_path / "me" / "p"
    monkeypatch.setenv("QWEN_AIO_HOME", "~/q")
    assert folders.home() == tmp_path / "me" / "q"


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_no_folder_is_not_taken_for_one(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    with pytest.raises(InvalidSettings, match="write the whole path"):
        folders.expanded("~/models")


def test_home_is_the_stated_folder_else_the_checkout(tmp_path, monkeypatch):
    settings = config.load_settings({})
    assert folders.home() == tmp_path
    assert config.status_dir(settings) == tmp_path / "status"
    assert (config.prompts_dir(settings) / "sentiment" / "task.toml").is_file()
    (tmp_path / "prompts").mkdir()
    assert config.prompts_dir(settings) == tmp_path / "prompts"
    monkeypatch.delenv("QWEN_AIO_HOME")
    assert folders.home() == Path.cwd()


def test_what_a_proxy_needs_is_read_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "qwen_aio.toml").write_text('root_path = "/qwen/"\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n')
    settings = config.load_settings({})
    assert (settings.root_path, settings.trusted_proxies) == ("/qwen", ("10.0.0.0/8", "::1"))
    monkeypatch.setenv("QWEN_AIO_TRUSTED_PROXIES", "127.0.0.1, fd00::/8")
    assert config.load_settings({"root_path": "/"}).trusted_proxies == ("127.0.0.1", "fd00::/8")
    assert config.load_settings({"root_path": "/"}).root_path == ""
