"""The process that loads the weights once and forks the workers that share them.

Started by `cluster`, not by people.

    python -m qwen_aio.cli.forkserver --control FILE [settings]

It must not start a thread that computes (cluster/forkserver.py): torch gets one thread here, and
what must be made once for a model is made elsewhere (prepare_weights.py). The workers run the golden cases,
with all the threads they get. They outlive this process (cluster/forkserver_client.py), and one
that fails harms no other.
"""

from __future__ import annotations

import argparse
import socket
from argparse import Namespace
from functools import partial

from qwen_aio.cli.prepare_weights import prepare_weights
from qwen_aio.cli.serve import serve
from qwen_aio.cluster import lifeline
from qwen_aio.cluster.forkserver import ForkServer
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import settings_of
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.arguments import ArgumentParser
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.flags import add_settings_flags, child_arguments, settings_from
from qwen_aio.startup.log import log_to_stderr
from qwen_aio.startup.process import exit_status, run_process
from qwen_aio.worker.loading import choose_model, load_weights, loaded_engine, prepare_process
from qwen_aio.worker.worker import LoadEngine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--control", type=int, required=True, help="number of the inherited socket")
    add_settings_flags(parser, *settings_of("worker"))


def main() -> int:
    """Load, then fork until the cluster is gone; the exit status."""
    parser = ArgumentParser(prog="forkserver", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    settings = settings_from(arguments)
    lifeline.hold()
    log_to_stderr(settings)
    egress_guard(settings)
    prepare_process(threads=1)
    model = choose_model(settings)
    weights = load_weights(settings, model, threads=1, prepare=partial(prepare_weights, arguments))
    load = partial(loaded_engine, weights=weights)
    with socket.socket(fileno=arguments.control) as control:
        return ForkServer(control, become=partial(_be_worker, arguments, model, load)).run()


def _be_worker(arguments: Namespace, model: ModelFolder, load: LoadEngine, spec: WorkerSpec) -> int:
    def run() -> int:
        settings = settings_from(child_arguments(arguments, "worker", **spec.settings))
        return serve(settings, model, mode="worker", threads=spec.threads, load=load)

    return exit_status(spec.id, run)


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="forkserver"))
