"""The process that makes what int8 or int4 needs once for a model: the comparison with fp32 and the weights.

Started by a server, not by people.

    python -m qwen_aio.cli.prepare_weights [settings]

It imports torch and takes all threads, which a server that answers with the C++ library would keep
for the rest of its life, and which a process that is forked later must not have. What is found and
made stays in state/weights.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import CancelledError
from contextlib import closing
from threading import Event

from qwen_aio.cluster import lifeline
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.config import settings_of
from qwen_aio.startup.arguments import ArgumentParser
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.flags import add_settings_flags, as_flags, child_arguments, settings_from
from qwen_aio.startup.log import log_to_stderr
from qwen_aio.startup.phases import phase
from qwen_aio.startup.process import run_process
from qwen_aio.worker.loading import choose_model, load_weights, prepare_process

LOOK_S = 0.05
logger = logging.getLogger(__name__)


def prepare_weights(arguments: Namespace, given_up: Event) -> None:
    """Leave nothing to compute for the process that loads the model of `arguments`; a failure is only logged.

    Raises CancelledError soon after `given_up` is set.
    """
    command = [sys.executable, "-m", "qwen_aio.cli.prepare_weights", *as_flags(child_arguments(arguments, "worker"))]
    # A lifeline of its own: this process may be at the end of another one.
    with phase("comparing with fp32, once for a model"), closing(Lifeline()) as own:
        process = subprocess.Popen(command, stdin=own.standard_input, env=own.environment())
        while (status := process.poll()) is None:
            if given_up.wait(LOOK_S):
                process.kill()  # it writes files whole or not at all
                process.wait()
                raise CancelledError
    if status:
        logger.warning("the process that prepares weights ended with status %d; going on without", status)


def main() -> int:
    """Prepare what the fork server will load; the exit status."""
    lifeline.hold_if_given()
    parser = ArgumentParser(prog="prepare_weights", description=__doc__)
    add_settings_flags(parser, *settings_of("worker"))
    settings = settings_from(parser.parse_args())
    log_to_stderr(settings)
    egress_guard(settings)
    threads = prepare_process(settings.threads)
    load_weights(settings, choose_model(settings), threads=threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="prepare_weights"))
