"""Run as a service of systemd, which starts it with the machine, watches it and starts it again.

sudo qwen-aio service install -- --workers 3     of the system; what follows -- are flags of `cluster`
qwen-aio service install --user                  of your own, without root
qwen-aio service install --program worker -- --host 10.0.0.7 --id far    on a machine with a worker alone

Writes the unit, and prints the commands that come next.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from argparse import Namespace
from pathlib import Path

from qwen_aio.cli import balance, cluster, serve
from qwen_aio.cluster.unit import COMMANDS, USER, ServiceUnit, check_reachable
from qwen_aio.config import Settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.files import read_text, replacing
from qwen_aio.machine.folders import PACKAGE, expanded, home
from qwen_aio.startup.arguments import ArgumentParser
from qwen_aio.startup.flags import settings_from
from qwen_aio.startup.messages import say

PROGRAMS = {"cluster": cluster, "worker": serve, "balancer": balance}
PATHS = ("config", "model", *(name for name, field in Settings.model_fields.items() if field.annotation == Path | None))
SYSTEM_FOLDER = Path("/etc/systemd/system")
NEXT_OF_SYSTEM = """\
next:
  sudo useradd --system --create-home --home-dir /var/lib/{user} --shell /usr/sbin/nologin {user}
  sudo systemctl daemon-reload
  sudo systemctl enable --now {name}
  journalctl --follow --unit {name}
a key, needed before the start where it listens beyond this machine:
  sudo -u {user} QWEN_AIO_HOME=/var/lib/{user} {python} -P -m qwen_aio.cli.main keys add NAME"""
NEXT_OF_USER = """\
next:
  systemctl --user daemon-reload
  systemctl --user enable --now {name}
  loginctl enable-linger    # so that it runs while you are not logged in
  journalctl --user --follow --unit {name}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    installing = actions.add_parser("install", help="write the unit, and print the commands that come next")
    installing.add_argument("--program", choices=tuple(COMMANDS), default="cluster", help="what it runs [cluster]")
    installing.add_argument("--user", action="store_true", help="a service of your own instead of the system's")
    installing.add_argument("--dir", type=Path, help=f"folder of units [{SYSTEM_FOLDER}, your own with --user]")
    installing.add_argument("--force", action="store_true", help="replace a unit that differs")
    installing.add_argument("flags", nargs="*", metavar="-- FLAG", help="flags of the program")


def main(arguments: Namespace) -> int:
    """Write the unit; the exit status. Raises InvalidSettings."""
    _check_flags(arguments)
    if not arguments.user:
        check_reachable((Path(sys.prefix), Path(sys.base_prefix), PACKAGE))
    unit = ServiceUnit(arguments.program, tuple(arguments.flags), home=home().absolute() if arguments.user else None)
    folder = arguments.dir or (_own_folder() if arguments.user else SYSTEM_FOLDER)
    say(_write(folder / f"{unit.name}.service", str(unit), may_replace=arguments.force))
    text = NEXT_OF_USER if arguments.user else NEXT_OF_SYSTEM
    say(text.format(name=unit.name, user=USER, python=unit.python))
    return 0


def _check_flags(arguments: Namespace) -> None:
    """What no start would take shows now. Raises InvalidSettings."""
    parser = ArgumentParser(prog="qwen-aio service install --", add_help=False)
    PROGRAMS[arguments.program].add_arguments(parser)
    flags = [*COMMANDS[arguments.program][1:], *arguments.flags]
    parsed = parser.parse_args(flags)
    settings_from(parsed)
    for name in PATHS:
        path = getattr(parsed, name, None)
        if path is not None and path != "bundled" and not Path(path).is_absolute():
            raise InvalidSettings(f"--{name.replace('_', '-')} {path}: a service needs the whole path", param=name)


def _own_folder() -> Path:
    stated = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (stated if stated.is_absolute() else expanded("~/.config")) / "systemd" / "user"


def _write(path: Path, text: str, *, may_replace: bool) -> str:
    """What was done, in words. Raises InvalidSettings."""
    try:
        before = read_text(path) if path.exists() else None
        if before == text:
            return f"{path} is as it was"
        if before is not None and not may_replace:
            print(*difflib.unified_diff(before.splitlines(), text.splitlines(), "there", "new", lineterm=""), sep="\n")
            raise InvalidSettings(f"{path} is there and differs; --force replaces it", param="force")
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InvalidSettings(f"{path} cannot be written: {exc.strerror}; use sudo, --user or --dir") from exc
    return f"{path} is written" if before is None else f"{path} is replaced"
