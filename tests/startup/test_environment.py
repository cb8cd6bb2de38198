import os
import tempfile
from pathlib import Path
from urllib.request import getproxies

import httpx
import pytest

from qwen_aio.cli.main import main
from qwen_aio.config import load_settings
from qwen_aio.errors import SetupError
from qwen_aio.startup.environment import ignore_proxies, prepare_gradio, stated_threads

PROXIES = [
    {"all_proxy": "socks5://127.0.0.1:9"},
    {"ALL_PROXY": "socks://127.0.0.1:9"},
    {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost,[::1]"},
    {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,fd00::/8"},
    {"https_proxy": ":::", "FTP_PROXY": "x", "Http_Proxy": "[", "no_proxy": ","},
    {"grpc_proxy": "127.0.0.1", "socks_proxy": "127.0.0.1:1080", "REQUEST_METHOD": "GET", "HTTP_PROXY": "a b"},
]


@pytest.mark.parametrize("environ", PROXIES, ids=str)
def test_no_proxy_is_left_that_a_library_could_find(environ, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    ignore_proxies(os.environ)
    httpx.Client().close()  # as gradio makes one when it is imported
    assert getproxies() == {"no": "*"}


@pytest.mark.parametrize(
    ("command", "are_kept"),
    [
        (["serve", "--port", "0"], False),
        (["balance", "--port", "0"], False),
        (["cluster", "--port", "0"], False),
        (["tune", "--seconds", "0"], False),
        (["tasks", "list"], True),
    ],
)
def test_only_programs_that_serve_go_without_proxies(command, are_kept, monkeypatch, capsys):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    main(command)
    assert ("HTTPS_PROXY" in os.environ) == are_kept


def test_gradio_reads_what_we_set_and_nothing_else(tmp_path):
    environ = {
        "GRADIO_SERVER_PORT": "tcp://10.0.0.1:80",
        "SSL_CERT_FILE": "/nowhere",
        "GRADIO_TEMP_DIR": "/",
        "HOME": "/",
    }
    prepare_gradio(environ, state=tmp_path / "state")
    assert environ == {"GRADIO_TEMP_DIR": str(tmp_path / "state" / "gradio"), "HOME": "/"}
    assert list((tmp_path / "state" / "gradio").iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_without_a_folder_of_its_own_gradio_gets_a_temporary_one(is_there, tmp_path):
    state = tmp_path / "state"
    if is_there:
        state.mkdir()
        (state / "gradio").touch()
    else:
        state.touch()
    environ: dict[str, str] = {}
    prepare_gradio(environ, state=state)
    given = Path(environ["GRADIO_TEMP_DIR"])
    assert given.parent == Path(tempfile.gettempdir())
    given.rmdir()


def test_without_any_folder_the_error_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    (tmp_path / "state").touch()
    with pytest.raises(SetupError, match=r"neither .*state/gradio.*QWEN_AIO_HOME or TMPDIR") as raised:
        prepare_gradio({}, state=tmp_path / "state")
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("variable", "flag", "threads", "line"),
    [
        (None, None, None, ""),
        (None, "3", 3, ""),
        ("3", "3", 3, ""),
        ("2", None, 2, "threads: 2, from OMP_NUM_THREADS=2; --threads would win over it\n"),
        ("4,2", None, 4, "threads: 4, from OMP_NUM_THREADS=4,2; --threads would win over it\n"),
        ("2", "3", 3, "threads: 3; the setting wins over OMP_NUM_THREADS=2\n"),
        ("0", None, None, "OMP_NUM_THREADS=0 is ignored: not a number from 1 to 256\n"),
        ("many", None, None, "OMP_NUM_THREADS=many is ignored: not a number from 1 to 256\n"),
        ("many", "3", 3, "threads: 3; the setting wins over OMP_NUM_THREADS=many\n"),
    ],
)
def test_the_environments_threads_are_the_default_and_are_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str | None,
    flag: str | None,
    threads: int | None,
    line: str,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert stated_threads(load_settings({} if flag is None else {"threads": flag})) == threads
    assert capsys.readouterr().err == line
