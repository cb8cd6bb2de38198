"""What a unit forbids by seccomp, put on a process of ours by libseccomp, which systemd itself uses."""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import subprocess
from collections.abc import Callable, Mapping
from ctypes.util import find_library

ALLOW, ERRNO, EQUAL = 0x7FFF0000, 0x00050000, 4  # of seccomp.h


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def sandbox(unit: str) -> Callable[[], None]:
    """Puts SystemCallFilter and RestrictAddressFamilies of `unit` on the process that calls it, for good."""
    library = ctypes.CDLL(find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ERRNO | errno.EPERM))
    add = library.seccomp_rule_add_array
    for name in allowed_calls(unit) - {"socket"}:
        number = library.seccomp_syscall_resolve_name(name.encode())
        assert number < 0 or add(context, ALLOW, number, 0, None) == 0, name  # below 0: not on this machine
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in lines(unit, "RestrictAddressFamilies")[0].split():
        comparison = Comparison(0, EQUAL, getattr(socket, family), 0)
        assert add(context, ALLOW, number, 1, ctypes.byref(comparison)) == 0

    def enter() -> None:
        if library.seccomp_load(context) != 0:
            raise OSError("the filter cannot be loaded")

    return enter


def allowed_calls(unit: str) -> set[str]:
    """The names of all system calls that the filter lets through."""
    sets = sets_of_calls()
    allowed = calls_of("@default", sets) | {"execve"}  # without these nothing would start
    for line in lines(unit, "SystemCallFilter"):
        names = {call for name in line.lstrip("~").split() for call in calls_of(name, sets)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def sets_of_calls() -> Mapping[str, list[str]]:
    """systemd's own sets: `@name` -> names of calls and of other sets."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    blocks = re.findall(r"^(@[\w-]+)\n((?:    .*\n)+)", re.sub(r"\x1b\[[0-9;]*m", "", told), flags=re.MULTILINE)
    return {name: [line.strip() for line in block.splitlines() if "#" not in line] for name, block in blocks}


def calls_of(name: str, sets: Mapping[str, list[str]]) -> set[str]:
    if not name.startswith("@"):
        return {name}
    return {call for each in sets[name] for call in calls_of(each, sets)}


def lines(unit: str, key: str) -> list[str]:
    """The values of `key`."""
    return re.findall(rf"^{key}=(.*)$", unit, flags=re.MULTILINE)
