"""What systemd is told, over a real socket."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_aio.startup.service_manager import ServiceManager


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def told(listening: socket.socket) -> list[bytes]:
    """The messages that have come."""
    messages = []
    while True:
        try:
            messages.append(listening.recv(100))
        except BlockingIOError:
            return messages


async def test_ready_and_the_end_are_told_and_nothing_else(listening: socket.socket) -> None:
    manager = ServiceManager(listening.getsockname())
    for state in ("starting", "ready", "draining", "failed"):
        manager.tell(state)
    assert told(listening) == [b"READY=1", b"STOPPING=1", b"STOPPING=1"]


async def test_there_are_signs_of_life_while_the_event_loop_turns_and_none_while_it_is_stuck(
    listening: socket.socket,
) -> None:
    manager = ServiceManager(listening.getsockname(), watchdog_s=0.02)
    manager.tell("ready")
    assert told(listening) == [b"READY=1", b"WATCHDOG=1"]
    time.sleep(0.1)  # noqa: ASYNC251  the loop is to be stuck
    assert told(listening) == []
    for _ in range(3):
        assert await asyncio.get_running_loop().sock_recv(listening, 100) == b"WATCHDOG=1"


def test_the_process_that_is_asked_reports_and_its_children_do_not() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert vars(ServiceManager.of_process(environ)) == {"_address": "/run/x", "_watchdog_s": 30.0}
    assert environ == {"HOME": "/"}
    assert vars(ServiceManager.of_process(environ)) == {"_address": None, "_watchdog_s": None}


@pytest.mark.parametrize("odd", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}], ids=str)
async def test_who_is_not_watched_gives_no_signs(odd: dict[str, str], listening: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "20000"} | odd
    ServiceManager.of_process(environ).tell("ready")
    assert told(listening) == [b"READY=1"]


@pytest.mark.parametrize("address", [None, ""])
async def test_without_systemd_nothing_happens(address: str | None) -> None:
    environ = {} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}
    ServiceManager.of_process(environ).tell("ready")


async def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0qwen_aio-{os.getpid()}")
        sock.setblocking(False)
        ServiceManager(f"@qwen_aio-{os.getpid()}").tell("ready")
        assert told(sock) == [b"READY=1"]


async def test_a_manager_that_is_gone_or_does_not_read_costs_a_line_of_the_log(
    listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager(listening.getsockname(), watchdog_s=0.001).tell("ready")
    while not caplog.records:  # noqa: ASYNC110  until its queue is full
        await asyncio.sleep(0)
    assert "systemd was not told message=WATCHDOG=1" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ServiceManager("/nowhere/notify").tell("ready")
    assert "No such file" in caplog.text
