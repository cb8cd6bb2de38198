"""The command `qwen-aio`, and what app.py calls: parse and dispatch.

Imports nothing heavy: each command loads what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qwen_aio.cli.parser import COMMANDS, module_of, parser_of, parser_with
from qwen_aio.cluster.lifeline import hold_if_given
from qwen_aio.startup.environment import ignore_proxies
from qwen_aio.startup.process import exit_status, run_process

SERVING = frozenset({"serve", "balance", "cluster", "tune"})  # also those that start servers


def main(arguments: Sequence[str] | None = None, *, program: str = "qwen-aio", command: str | None = None) -> int:
    """Run `command`, or the one named first in `arguments`; the exit status."""
    hold_if_given()
    arguments = sys.argv[1:] if arguments is None else arguments
    if command is None:
        named = set(arguments[:1]) & COMMANDS.keys()
        parser = parser_with(named or COMMANDS, program=program)
    else:
        parser = parser_of(command, program=program)
    parsed = parser.parse_args(arguments)
    if parsed.command in SERVING:
        ignore_proxies(os.environ)
    return exit_status(program, lambda: module_of(parsed.command).main(parsed))


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="qwen-aio"))
