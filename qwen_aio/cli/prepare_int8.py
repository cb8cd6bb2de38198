"""The process that compares and quantises before the fork server loads.

Started by it, not by people.

    python -m qwen_aio.cli.prepare_int8 [settings]

Both take long and need all threads, and a process that has started threads cannot be forked. What
is found and made stays in state/int8. A small model is not worth a process; one that is prepared
needs none.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from argparse import Namespace
from contextlib import closing

from qwen_aio.cluster import lifeline
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.config import settings_of
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.arguments import ArgumentParser
from qwen_aio.startup.flags import add_settings_flags, as_flags, child_arguments, settings_from
from qwen_aio.startup.log import log_to_stderr
from qwen_aio.startup.process import run_process
from qwen_aio.worker.loading import choose_model, engine_of, load_weights, prepare_process, records_of
from qwen_aio.worker.precision import is_prepared, is_small

logger = logging.getLogger(__name__)


def prepare_int8(arguments: Namespace, model: ModelFolder) -> None:
    """Leave nothing to compute for the process that loads `model` next.

    Where that fails, the loader computes.
    """
    # Here and not above: importing torch takes seconds, and it must follow the threads.
    from qwen_aio.engine.model.linear import why_no_int8

    settings = settings_from(arguments)
    if engine_of(settings, model).kind == "transformers":
        return
    if is_small(model) or is_prepared(settings, records_of(settings, model), why_no_int8=why_no_int8):
        return
    command = [sys.executable, "-m", "qwen_aio.cli.prepare_int8", *as_flags(child_arguments(arguments, "worker"))]
    with closing(Lifeline()) as own:  # the cluster waits for every process that has the fork server's output open
        ended = subprocess.run(command, check=False, stdin=own.standard_input, env=own.environment())
    if ended.returncode:
        status = ended.returncode
        logger.warning("the process that prepares int8 weights ended with status %d; going on without", status)


def main() -> int:
    """Prepare what the fork server will load; the exit status."""
    lifeline.hold_if_given()
    parser = ArgumentParser(prog="prepare_int8", description=__doc__)
    add_settings_flags(parser, *settings_of("worker"))
    settings = settings_from(parser.parse_args())
    log_to_stderr(settings)
    threads = prepare_process(settings.threads)
    load_weights(settings, choose_model(settings), threads=threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="prepare_int8"))
