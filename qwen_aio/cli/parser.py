"""The command line of every program: which commands there are, and the parser of one or of all.

A command's module is imported when its flags are needed: all together take two seconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

from qwen_aio import __version__
from qwen_aio.startup.arguments import ArgumentParser

# Name -> module of this folder, which has `add_arguments` and `main`; its docstring is the help.
COMMANDS = {
    **{"serve": "serve", "balance": "balance", "cluster": "cluster", "service": "install_service", "keys": "keys"},
    **{"run": "run", "chat": "chat", "classify": "classify", "eval": "evaluate", "calibrate": "calibrate"},
    **{"tasks": "tasks", "models": "models", "tune": "tune", "doctor": "doctor", "bundle": "bundle"},
    "completion": "completion",
}


def module_of(command: str) -> ModuleType:
    """What carries `command` out."""
    return importlib.import_module(f"qwen_aio.cli.{COMMANDS[command]}")


def parser_of(command: str, *, program: str) -> ArgumentParser:
    """For a program that is one command."""
    return _filled(ArgumentParser(prog=program, description=module_of(command).__doc__), command)


def parser_with(commands: Iterable[str], *, program: str) -> ArgumentParser:
    """For a program whose first argument is one of `commands`."""
    parser = ArgumentParser(prog=program, description="One small model on the CPU, many tasks at once.")
    _add_version(parser)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in commands:
        text = module_of(name).__doc__ or ""
        _filled(subparsers.add_parser(name, help=text.splitlines()[0], description=text), name)
    return parser


def _filled(parser: ArgumentParser, command: str) -> ArgumentParser:
    module_of(command).add_arguments(parser)
    _add_version(parser)
    parser.set_defaults(command=command)
    return parser


def _add_version(parser: ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"qwen_aio {__version__}")
