"""What every program does around its own work: streams, errors as one sentence, the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qwen_aio.errors import QwenAioError
from qwen_aio.startup.language import settle_language
from qwen_aio.startup.messages import translated
from qwen_aio.startup.streams import secure_streams, status_after


def run_process(run: Callable[[], int], *, program: str) -> int:
    """Let `run` be the whole of this process; the exit status, see `exit_status`."""
    settle_language(sys.argv[1:])
    output = secure_streams()
    try:
        status = exit_status(program, run)
    except SystemExit as exc:  # argparse's, after --help too
        status = exc.code if isinstance(exc.code, int) else 0
    return status_after(output, status, program=program)


def exit_status(program: str, run: Callable[[], int]) -> int:
    """The exit status of `run`: 1 for an error of ours, which is printed as one sentence."""
    try:
        return run()
    except QwenAioError as exc:
        print(f"{program}: {translated(exc.message)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
