"""Environments that are common elsewhere: every program serves, and nothing leaves through a proxy."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.clusters import cluster
from tests.e2e.processes import OPENER, free_port, running, start

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
QUESTION = {"text": "快递太慢了,差评!", "mode": "sentiment"}
LIBC = ctypes.CDLL(None)
# Python runs it at the start of every process that has its folder on the path.
WITNESS = """
import sys
def witness(event, values):
    is_address = event in ("socket.connect", "socket.bind") and isinstance(values[1], tuple)
    if event == "socket.getaddrinfo" or is_address:
        with open({file!r}, "a") as seen:
            host = values[0] if event == "socket.getaddrinfo" else values[1][0]
            print(host, file=seen)
sys.addaudithook(witness)
"""


@pytest.fixture
def proxy() -> Iterator[socket.socket]:
    """Listens, and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def url_of(proxy: socket.socket) -> str:
    return f"http://127.0.0.1:{proxy.getsockname()[1]}"


def assert_unused(proxy: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        proxy.accept()


@pytest.mark.parametrize(
    "odd",
    [
        {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "localhost,[::1]"},
        *in_campaign({"ALL_PROXY": "socks://127.0.0.1:9"}),
        {"NO_PROXY": "localhost,fd00::/8", "ftp_proxy": "::", "WEB_CONCURRENCY": "", "SSLKEYLOGFILE": "/no/where"},
    ],
    ids=str,
)
def test_page_and_runs_are_served_under_any_proxy(odd, proxy, tmp_path):
    environment = {"http_proxy": url_of(proxy), "HTTPS_PROXY": url_of(proxy)} | odd
    with running(tmp_path, environment=environment) as app:
        status, page = app.get("/")
        assert (status, "gradio" in page) == (200, True)
        assert app.post("/v1/run", QUESTION)[1]["label"] == "negative"
        assert "Traceback" not in app.log.read_text()
    assert_unused(proxy)


def test_page_and_runs_ask_no_other_machine_for_anything(tmp_path):
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(file=str(seen)))
    environment = {"PYTHONPATH": str(tmp_path)}
    control = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('192.0.2.1', 9), .01)"
    )
    subprocess.run([sys.executable, "-c", control], env=os.environ | environment, check=True)
    assert seen.read_text().split() == ["192.0.2.1"] * 2  # looked up, and connected to
    with running(tmp_path / "home", environment=environment) as app:
        assert app.get("/")[0] == 200
        assert app.post("/v1/run", QUESTION | {"reply": True})[1]["label"] == "negative"
        for path in ("/health", "/metrics", "/v1/models", "/static/../nothing"):
            app.get(path)
    assert set(seen.read_text().split()[2:]) == {"127.0.0.1"}  # where it listens


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sharing", ["on", *in_campaign("off")])
@only_in_campaign
def test_a_cluster_starts_and_serves_under_any_proxy(sharing, proxy, tmp_path):
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")
    odd = {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "[::1],fd00::/8"}
    environment = dict.fromkeys(names, url_of(proxy)) | odd
    with cluster(tmp_path, "--share-weights", sharing, num_workers=2, environment=environment) as service:
        assert service.post("/v1/run", QUESTION)[1]["label"] == "negative"
        with OPENER.open(service.page_url, timeout=60) as page:
            assert page.status == 200
    assert_unused(proxy)


def bound_by_rights() -> None:
    """Root, too, may do no more than the rights of files and folders say."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize(
    "case", ["gradio's is not ours", "all are read-only", *in_campaign("gradio's is none", "state is none")]
)
def test_the_page_is_served_wherever_files_cannot_be_kept(case, tmp_path):
    temporary, home = tmp_path / "tmp", tmp_path / "home"
    (temporary / "gradio").mkdir(parents=True)
    home.mkdir()
    environment = {"TMPDIR": str(temporary)}
    match case:
        case "gradio's is not ours":
            (temporary / "gradio").chmod(0)
        case "gradio's is none":
            environment |= {"GRADIO_TEMP_DIR": "/proc/x", "TMPDIR": str(tmp_path / "nowhere")}
        case "state is none":
            (home / "state").touch()
        case "all are read-only":
            temporary.chmod(0o555)
            (home / "state").mkdir(mode=0o555)
    flags = ("--mode", "ui", "--url", f"http://127.0.0.1:{free_port()}")
    app = start(home, *flags, wait=False, environment=environment, before=bound_by_rights)
    try:
        app.wait_until("served", app.is_alive)
        assert app.get("/")[0] == 200
        assert "Traceback" not in app.log.read_text()
        assert app.stop() == 0
    finally:
        app.process.kill()
        app.process.wait()
    assert not _passing_folders(temporary)


def _passing_folders(temporary: Path) -> list[Path]:
    return list(temporary.glob("qwen_aio-*"))
