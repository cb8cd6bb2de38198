"""`qwen-aio cluster` with the bundled model: one command, and what happens when any part of it dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request

import psutil
import pytest

from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.serving.transport.server import bind
from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.clusters import Cluster, cluster, wait_free, wait_gone
from tests.e2e.processes import OPENER, ROOT, free_port

can_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
pytestmark = pytest.mark.timeout(300)
QUESTION = {"text": "快递太慢了,差评!", "mode": "sentiment"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("home"), num_workers=2) as running:
        yield running


def test_one_command_gives_workers_a_balancer_and_a_page(service):
    status, health = service.get("/health")
    assert (status, health["state"], health["ready"]) == (200, "ok", 2)
    assert service.post("/v1/run", QUESTION)[1]["label"] == "negative"
    with OPENER.open(service.page_url, timeout=60) as page:
        assert page.status == 200
    log = service.log.read_text()
    assert f"the page: {service.page_url}" in log
    assert "page starting, balancer starting, qwen-1 starting, qwen-2 starting" in log
    assert "page ready, balancer ready, qwen-1 ready, qwen-2 ready" in log
    assert {worker["url"] for worker in service.status().values()} == {
        f"http://127.0.0.1:{port}" for port in service.ports[2:]
    }


@can_fork
def test_workers_are_forks_of_one_process_and_no_children_of_the_cluster(service):
    parents = {psutil.Process(pid).ppid() for pid in service.worker_pids().values()}
    server = service.child("qwen_aio.cli.forkserver")
    assert server is not None
    assert parents == {server.pid}


def test_a_killed_worker_comes_back_as_a_new_generation_and_the_other_does_not_notice(service):
    before, pids = service.status(), service.worker_pids()
    os.kill(pids["qwen-1"], signal.SIGKILL)
    service.wait_until("back", lambda: service.worker_pids()["qwen-1"] != pids["qwen-1"] and service.is_whole())
    after = service.status()
    assert after["qwen-1"]["generation"] == before["qwen-1"]["generation"] + 1
    assert after["qwen-2"]["pid"] == pids["qwen-2"]
    output = "qwen-1 was killed by signal 9, most often for lack of memory (the cluster needs up to"
    assert output in service.log.read_text()
    assert {service.post("/v1/run", QUESTION)[1]["label"] for _ in range(4)} == {"negative"}


@pytest.mark.parametrize("words", [("balance",), ("serve", "ui")])
def test_a_killed_balancer_or_page_comes_back_and_the_workers_stay(service, words):
    pids, old = service.worker_pids(), service.child(*words)
    assert old is not None
    old.kill()
    service.wait_until("another", lambda: service.child(*words) not in (None, old) and service.is_whole())
    service.wait_until("page", lambda: _answers(service.page_url))
    assert service.worker_pids() == pids


@can_fork
def test_workers_outlive_their_fork_server_and_later_ones_come_from_the_next(service):
    pids, old = service.worker_pids(), service.child("qwen_aio.cli.forkserver")
    assert old is not None
    old.kill()
    service.wait_until("another", lambda: service.child("qwen_aio.cli.forkserver") not in (None, old))
    assert service.worker_pids() == pids
    assert service.is_whole()
    os.kill(pids["qwen-2"], signal.SIGKILL)
    service.wait_until("back", lambda: service.worker_pids()["qwen-2"] != pids["qwen-2"] and service.is_whole())
    new = service.child("qwen_aio.cli.forkserver")
    assert new is not None
    assert psutil.Process(service.worker_pids()["qwen-2"]).ppid() == new.pid
    assert psutil.Process(pids["qwen-1"]).is_running()


def test_sigterm_lets_a_stream_end_and_leaves_nobody(tmp_path):
    with cluster(tmp_path, num_workers=1) as running:
        processes = running.everybody()
        with _open_stream(running.url) as stream:
            content = _read_until(stream, b"event: token")
            running.process.send_signal(signal.SIGTERM)
            content = _read_until(stream, b"event: done", content)
        assert b"event: error" not in content
        assert running.process.wait(timeout=60) == 0
        wait_gone(processes)
        log = running.log.read_text()
        order = [log.index(f"stopping {name}") for name in ("page", "balancer", "qwen-1")]
        assert order == sorted(order)
        assert running.status()["qwen-1"]["state"] == "draining"


@pytest.mark.parametrize("share", ["on", *in_campaign("off")])
def test_when_the_cluster_is_killed_all_end_and_its_ports_and_ids_are_free(tmp_path, share):
    with cluster(tmp_path, "--share-weights", share, num_workers=1) as running:
        processes = running.everybody()
        assert len(processes) == (5 if share == "on" else 4)
        os.kill(running.worker_pids()["qwen-1"], signal.SIGSTOP)  # even a stopped one goes
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_gone(processes)
        wait_free(running.ports)
    with cluster(tmp_path, "--share-weights", share, num_workers=1, wait=False) as again:
        again.wait_until("claimed", lambda: again.status()["qwen-1"]["generation"] == 2)


@only_in_campaign
def test_a_second_signal_does_not_wait(tmp_path):
    with cluster(tmp_path, num_workers=1) as running:
        processes = running.everybody()
        with _open_stream(running.url) as stream:
            _read_until(stream, b"event: token")
            os.kill(running.worker_pids()["qwen-1"], signal.SIGSTOP)  # so that nothing can end by itself
            running.process.send_signal(signal.SIGINT)
            running.wait_until("stopping", lambda: "stopping balancer" in running.log.read_text())
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(timeout=60) == 128 + signal.SIGINT
        wait_gone(processes)


def test_a_model_that_cannot_be_loaded_ends_the_cluster_with_the_reason(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "qwen_aio" / "models" / "bundled", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with cluster(tmp_path / "home", "--model", str(model), num_workers=1, wait=False) as running:
        assert running.process.wait(timeout=120) == 1
        output = running.log.read_text()
        assert "qwen-1 cannot be started; it ended 3 times" in output
        assert "model.safetensors is damaged" in output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--model", "/nowhere"], "no model folder at /nowhere"),
        (["--prompts-dir", "/nowhere"], "no folder of tasks"),
        (["--workers", "none"], "a cluster takes their number"),
        (["--host", "0.0.0.0"], "--insecure"),
    ],
)
def test_a_mistake_is_printed_before_anything_is_started(tmp_path, flags, reason):
    output = _mistaken(tmp_path, *flags)
    assert reason in output
    assert output.count("\n") == 1


def test_a_port_in_use_is_told_before_anything_is_started(tmp_path):
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for flag in ("--port", "--balancer-port", "--worker-port"):
            output = _mistaken(
                tmp_path, "--port", str(free_port()), "--balancer-port", str(free_port()), flag, str(port)
            )
            assert f"127.0.0.1:{port}: it is in use" in output
            assert output.endswith(f"or choose another with {flag}\n")


def test_another_balancer_before_the_same_workers_is_told_before_anything_is_started(tmp_path):
    with AdminFile(tmp_path / "status").owned():
        output = _mistaken(tmp_path, "--port", str(free_port()), "--balancer-port", str(free_port()))
    assert "another balancer serves" in output
    assert "--status-dir" in output


def _mistaken(home: Path, *flags: str) -> str:
    """What a cluster that ends at once has to say."""
    command = [sys.executable, "-m", "qwen_aio.cli.main", "cluster", *flags]
    ended = subprocess.run(command, env=os.environ | {"QWEN_AIO_HOME": str(home)}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def _answers(url: str) -> bool:
    try:
        with OPENER.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _open_stream(url: str) -> socket.socket:
    """A connection over which a long answer is coming."""
    long = {"max_tokens": 1000, "temperature": 5, "top_p": 1, "top_k": 0}  # any token may come, so hardly the last
    body = json.dumps({"text": "你好", "mode": "chat", "stream": True, "seed": 1, **long}).encode()
    parts = urlsplit(url)
    request = Request(url + "/v1/run", body)
    head = f"POST {request.selector} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    stream = socket.create_connection((parts.hostname, parts.port), timeout=60)
    stream.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return stream


def _read_until(stream: socket.socket, mark: bytes, content: bytes = b"") -> bytes:
    """`content` is what was read before."""
    while mark not in content:
        chunk = stream.recv(65536)
        assert chunk, f"hung up before {mark!r}: {content!r}"
        content += chunk
    return content
