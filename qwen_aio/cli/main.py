"""The command `qwen-aio`, and what app.py calls: parse and dispatch.

Imports nothing heavy: each command loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from qwen_aio import __version__
from qwen_aio.cli import (
    balance,
    calibrate,
    classify,
    cluster,
    evaluate,
    install_service,
    keys,
    models,
    run,
    serve,
    tasks,
    tune,
)
from qwen_aio.cluster.lifeline import hold_if_given
from qwen_aio.startup.environment import ignore_proxies
from qwen_aio.startup.process import exit_status, run_process

COMMANDS = {
    **{"serve": serve, "balance": balance, "cluster": cluster, "service": install_service, "keys": keys},
    **{"run": run, "classify": classify, "eval": evaluate, "calibrate": calibrate},
    **{"tasks": tasks, "models": models, "tune": tune},
}
SERVING = frozenset({"serve", "balance", "cluster", "tune"})  # also those that start servers


def main(arguments: Sequence[str] | None = None, *, program: str = "qwen-aio", command: str | None = None) -> int:
    """Run `command`, or the one named first in `arguments`; the exit status."""
    hold_if_given()
    parsed = _parser(program, command).parse_args(arguments)
    if parsed.command in SERVING:
        ignore_proxies(os.environ)
    return exit_status(program, lambda: COMMANDS[parsed.command].main(parsed))


def _parser(program: str, command: str | None) -> argparse.ArgumentParser:
    if command is not None:
        return _filled(argparse.ArgumentParser(prog=program, description=COMMANDS[command].__doc__), command)
    parser = argparse.ArgumentParser(prog=program, description="One small model on the CPU, many tasks at once.")
    _add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        first_line = (module.__doc__ or "").splitlines()[0]
        _filled(commands.add_parser(name, help=first_line, description=module.__doc__), name)
    return parser


def _filled(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    COMMANDS[command].add_arguments(parser)
    _add_version(parser)
    parser.set_defaults(command=command)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"qwen_aio {__version__}")


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="qwen-aio"))
