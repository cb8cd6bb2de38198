"""The process that compares and quantises before the nursery loads. Started by the nursery, not by people.

    python -m qwen_aio.cli.prepare_int8 SETTINGS

Both take long and want all threads, and whoever has started threads cannot be forked. What is found out and made is
left in state/int8. A small model is not worth a process, nor one that is settled.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import closing

from qwen_aio.cli.main import exit_status, run_process
from qwen_aio.cluster import lifeline
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.config import Settings
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.listening import log_to_stderr
from qwen_aio.worker.loading import choose_model, load_weights, prepare_process, records_of
from qwen_aio.worker.precision import is_settled, is_small

log = logging.getLogger(__name__)


def settle_precision(settings: Settings, model: ModelFolder) -> None:
    """See to it that the weights of `model` can be loaded without computing. Failing that they are computed there."""
    # Here and not above: importing torch takes seconds, and nothing may compute before its threads are set.
    from qwen_aio.engine.model.linear import why_no_int8

    if is_small(model) or is_settled(settings, records_of(settings, model), why_no_int8=why_no_int8):
        return
    command = [sys.executable, "-m", "qwen_aio.cli.prepare_int8", settings.model_dump_json()]
    with closing(Lifeline()) as own:  # the cluster waits for whoever has the nursery's output open
        ended = subprocess.run(command, check=False, stdin=own.standard_input, env=own.environment())
    if ended.returncode:
        log.warning("the process that prepares int8 weights ended with status %d; going on without", ended.returncode)


def main() -> int:
    """Prepare what the nursery will load; the exit status."""
    lifeline.hold_if_given()
    settings = Settings.model_validate_json(sys.argv[1])
    log_to_stderr(settings)
    return exit_status("settling", lambda: _settle(settings))


def _settle(settings: Settings) -> int:
    threads = prepare_process(settings.threads)
    load_weights(settings, choose_model(settings), threads=threads)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="settling"))
