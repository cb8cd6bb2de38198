"""Serve: page and /v1 in one process (single), one worker of many (worker), or the page alone (ui).

python app.py                                    the page on http://127.0.0.1:7860
python app.py --mode worker --port 7861 --id qwen-1
python app.py --mode ui --url http://127.0.0.1:8000    the page in front of a balancer
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI

from qwen_aio import __version__
from qwen_aio.cli.prepare_weights import prepare_weights
from qwen_aio.config import PAGE_PORT, Settings, prompts_dir, settings_of
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.folders import state_dir
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.transport.server import bind, bind_first_free
from qwen_aio.startup import event_loop
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.environment import prepare_gradio, stated_threads
from qwen_aio.startup.exposure import check_exposure
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.log import log_to_stderr
from qwen_aio.startup.phases import phase
from qwen_aio.startup.service_manager import ServiceManager
from qwen_aio.status.record import WorkerStatus
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.app import create_worker_app
from qwen_aio.worker.loading import choose_model, loaded_engine, prepare_process
from qwen_aio.worker.memory_need import log_memory, sized
from qwen_aio.worker.worker import LoadEngine, WorkerServer

FIRST_WORKER_PORT = 7861
Mode = Literal["single", "worker"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=("single", "worker", "ui"),
        default="single",
        help="page and model, a worker without a page, or the page alone [single]",
    )
    parser.add_argument("--url", help="server that the page of --mode ui asks [http://127.0.0.1:8000]")
    add_settings_flags(parser, *settings_of("worker", "page"))


def main(arguments: argparse.Namespace) -> int:
    """Serve until a signal; the exit status."""
    settings = settings_from(arguments)
    check_exposure(settings)
    log_to_stderr(settings)
    if arguments.mode == "ui":
        from qwen_aio.ui.page_server import SERVER_URL, serve_page  # here and not above: a worker has no page

        return serve_page(settings, url=arguments.url or SERVER_URL)
    if arguments.url:
        raise InvalidSettings("--url is the server that the page asks: it goes with --mode ui alone", param="url")
    egress_guard(settings)
    threads = prepare_process(stated_threads(settings))
    model = choose_model(settings)
    settings = sized(settings, model)
    log_memory(settings, model)
    load = partial(loaded_engine, prepare=partial(prepare_weights, arguments))
    return serve(settings, model, mode=arguments.mode, threads=threads, load=load)


def serve(settings: Settings, model: ModelFolder, *, mode: Mode, threads: int, load: LoadEngine) -> int:
    """Be one worker until a signal; the exit status. Raises SetupError."""
    tasks = load_tasks(prompts_dir(settings))
    with _listening(settings, mode) as sock:
        make_app = partial(_app_with_page, model) if mode == "single" else create_worker_app
        worker = WorkerServer(
            settings,
            tasks,
            model,
            sock=sock,
            threads=threads,
            load=load,
            make_app=make_app,
            manager=ServiceManager.of_process(os.environ),
            egress=egress_guard(settings),
        )
        return event_loop.run(worker.run())


def _app_with_page(
    model: ModelFolder, gate: AdmissionGate, *, status: Callable[[], WorkerStatus], keys: KeyRing, **more: Any
) -> FastAPI:
    """Single mode: the page on the worker's own port. The rest is as in create_worker_app."""
    prepare_gradio(os.environ, state=state_dir())
    # Here and not above: gradio takes seconds to import, and a worker has no page.
    with phase("loading the page"):
        from qwen_aio.ui.about import About
        from qwen_aio.ui.mount import CONTENT_SECURITY_POLICY, mount_page
        from qwen_aio.ui.page import build_page
        from qwen_aio.ui.refusals import worded

    about = About(model.name, model.is_bundled, __version__, status().id)
    app = create_worker_app(gate, status=status, keys=keys, page_csp=CONTENT_SECURITY_POLICY, worded=worded, **more)
    return mount_page(app, build_page(gate, about=lambda: replace(about, has_keys=not keys.is_open)))


def _listening(settings: Settings, mode: Mode) -> socket.socket:
    """The port is taken before anything is loaded: a mistake shows at once."""
    if settings.port is not None or mode == "single":
        return bind(settings.host, settings.port or PAGE_PORT)
    return bind_first_free(settings.host, FIRST_WORKER_PORT)
