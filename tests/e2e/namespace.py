"""A network of its own, with loopback and no route: what a process starts inside cannot reach anybody else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8913, 0x8914, 0x8916, 1
ELSEWHERE = "198.51.100.7"  # inside, an address as of another machine that can be reached
OWN_NETWORK = Path("/proc/thread-self/ns/net")


@contextmanager
def no_network() -> Iterator[None]:
    """This thread, and the processes that it starts, in such a network. Skips where none can be made."""
    if sys.platform != "linux":
        pytest.skip("network namespaces exist on Linux alone")
    library = ctypes.CDLL(None, use_errno=True)
    before = os.open(OWN_NETWORK, os.O_RDONLY)
    try:
        if library.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace can be made here (root may): {os.strerror(ctypes.get_errno())}")
        try:
            _bring_up("lo")
            _give_address("lo:1", ELSEWHERE)
            yield
        finally:
            assert library.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


def _bring_up(interface: str) -> None:
    with socket.socket() as sock:
        request = struct.pack("16sh14x", interface.encode(), 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | IFF_UP))


def _give_address(interface: str, address: str) -> None:
    with socket.socket() as sock:
        given = struct.pack("16sHH4s8x", interface.encode(), socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(sock, SIOCSIFADDR, given)
