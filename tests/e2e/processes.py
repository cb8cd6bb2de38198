"""Real processes, as a user would start them: in a folder of their own, ended whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from tests.e2e.prepared import put_prepared_weights

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 90.0
ANY_PORT = 0
NOTHING: Mapping[str, str] = MappingProxyType({})
OPENER = build_opener(ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class App:
    """A running `python app.py ...` or `python balancer.py ...`."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    log: Path

    def get(self, path: str, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        return self._send(Request(self.url + path, headers=headers or {}))

    def post(self, path: str, body: object, *, headers: Mapping[str, str] = NOTHING) -> tuple[int, Any]:
        content = json.dumps(body).encode()
        return self._send(Request(self.url + path, content, {"Content-Type": "application/json", **headers}))

    def status(self) -> dict[str, Any]:
        return json.loads((self.home / "status" / "status.json").read_text())["workers"]

    def wait_until(self, condition: str, check: Any) -> None:
        """Poll `check`; a process that ends or takes too long fails with its log."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not check():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not {condition}; status {self.process.poll()}; log:\n{self.log.read_text()}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether it serves; finds out its address first, where it says to open it."""
        return self.answers("/readyz")

    def is_alive(self) -> bool:
        """Whether it answers at all, as a page does without the server behind it."""
        return self.answers("/livez")

    def answers(self, path: str) -> bool:
        told = re.search(r"open (http://\S+)", self.log.read_text())
        if told is None:
            return False
        self.url = told[1]
        try:
            return self.get(path)[0] == 200
        except (URLError, OSError):
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def _send(self, request: Request) -> tuple[int, Any]:
        try:
            with OPENER.open(request, timeout=60) as response:
                return response.status, _read(response)
        except HTTPError as error:
            return error.code, _read(error)


def _read(response: Any) -> Any:
    content = response.read()
    is_json = response.headers.get_content_type() == "application/json"
    return json.loads(content) if is_json else content.decode()


def start(
    home: Path,
    *flags: str,
    port: int | None = ANY_PORT,
    wait: bool = True,
    program: str = "app.py",
    environment: Mapping[str, str] = NOTHING,
    before: Callable[[], None] | None = None,
) -> App:
    """Start `program` in a home; ready when this returns, unless `wait` is false. Port None: its own choice.

    `environment` is added to ours; `before` runs in the process before the program does.
    """
    if port is not None:
        flags = (*flags, "--port", str(port or free_port()))
    home.mkdir(exist_ok=True)
    put_prepared_weights(home)
    log = home / f"{len(list(home.glob('*.log')))}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / program), *flags],
        env=inherited | {"QWEN_AIO_HOME": str(home), "PYTHONUNBUFFERED": "1"} | dict(environment),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        preexec_fn=before,
    )
    app = App(process, "", home, log)
    if wait:
        try:
            app.wait_until("ready", app.is_ready)
        except AssertionError:
            process.kill()
            raise
    return app


@contextmanager
def running(home: Path, *flags: str, **more: Any) -> Iterator[App]:
    """As `start`; the process is gone at the end."""
    app = start(home, *flags, **more)
    try:
        yield app
    finally:
        if app.process.poll() is None:
            app.process.kill()
        app.process.wait()
