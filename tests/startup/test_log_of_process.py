"""The log of a real balancer: every line is an object, and no key or text is in it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

KEY, TEXT = "qk-a-private-key", "a very private sentence"
BODY = json.dumps({"text": TEXT, "mode": "a\r\nERROR forged\u2028\x1b[2K"}).encode()
PATHS = (b"/v1/run", b"/v1/a%0d%0aERROR%20forged%e2%80%a8%1b[2K")
EXTRA = (b"", b"X-Request-ID: a\x1b[2Kb\r\n", b"Transfer-Encoding: chunked\r\n")


def ask(port: int, path: bytes, extra: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n" % (path, KEY.encode())
    rest = b"Content-Type: application/json\r\nContent-Length: %d\r\n%s\r\n" % (len(BODY), extra)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head + rest + BODY)
        assert client.recv(16).startswith(b"HTTP/1.1 ")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there at once")
def test_hostile_requests_are_objects_without_keys_and_texts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--port", str(port), "--status-dir", str(tmp_path), "--log-format", "json", "--log-level", "debug"]
    command = [sys.executable, "balancer.py", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and "open http" in process.stdout.readline()
            for path in PATHS:
                for extra in EXTRA:
                    ask(port, path, extra)
        finally:
            process.send_signal(signal.SIGTERM)
            out, log = process.communicate(timeout=60)
    assert process.returncode == 0
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["path"][:5] for event in events if "path" in event] == ["/v1/r"] * 3 + ["/v1/a"] * 3
    assert not any(secret in out + log for secret in (KEY, TEXT))
