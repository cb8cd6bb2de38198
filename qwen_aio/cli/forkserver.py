"""The process that loads the weights once and forks workers, which all share them. Started by `cluster`, not by people.

    python -m qwen_aio.cli.forkserver --control FILE [settings]

Copy on write: nobody writes to weights, so one copy serves all. A fork takes the thread that calls it and no other, so
that this process must not have started any that computes: torch gets one thread here, and no more is computed than the
comparison of a small model (settling.py). The workers answer the golden cases, with as many threads as they get. A
worker lives on when this process dies (nursery_link.py), and one that dies harms no other.
"""

from __future__ import annotations

import argparse
import socket
from functools import partial

from qwen_aio.cli.main import exit_status, run_process
from qwen_aio.cli.prepare_int8 import settle_precision
from qwen_aio.cli.serve import serve
from qwen_aio.cluster import lifeline
from qwen_aio.cluster.forkserver import ForkServer
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import Settings
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.listening import log_to_stderr
from qwen_aio.worker.loading import choose_model, load_weights, loaded_engine, prepare_process
from qwen_aio.worker.worker import LoadEngine


def main() -> int:
    """Load, then fork until the cluster is gone; the exit status."""
    parser = argparse.ArgumentParser(prog="nursery", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="number of the inherited socket")
    add_settings_flags(parser)
    arguments = parser.parse_args()
    return exit_status("nursery", lambda: _serve_cluster(settings_from(arguments), arguments.control))


def _serve_cluster(settings: Settings, control: int) -> int:
    lifeline.hold()
    log_to_stderr(settings)
    prepare_process(threads=1)
    model = choose_model(settings)
    settle_precision(settings, model)
    become = partial(
        _be_worker, settings, model, load=partial(loaded_engine, weights=load_weights(settings, model, threads=1))
    )
    with socket.socket(fileno=control) as connected:
        return ForkServer(connected, become=become).run()


def _be_worker(settings: Settings, model: ModelFolder, wanted: WorkerSpec, *, load: LoadEngine) -> int:
    own = settings.model_copy(update={"id": wanted.id, "port": wanted.port, **dict(wanted.changes)})
    return exit_status(wanted.id, lambda: serve(own, model, mode="worker", threads=wanted.threads, load=load))


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="nursery"))
