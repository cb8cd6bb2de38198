"""Serve: page and /v1 in one process (single), one worker for a service of many (worker), or the page alone (ui).

python app.py                                    the page on http://127.0.0.1:7860
python app.py --mode worker --port 7861 --id qwen-1
python app.py --mode ui --url http://127.0.0.1:8000    the page in front of a balancer
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Literal

from qwen_aio import __version__
from qwen_aio.cli.environment import prepare_gradio
from qwen_aio.cli.flags import add_settings_flags, settings_from
from qwen_aio.cli.listening import allowed_hosts, log_to_stderr, proxy_settings, url_of
from qwen_aio.cli.loading import Loaded, choose_model, loaded, prepare_process, stated_threads, told_model
from qwen_aio.cli.memory_need import log_memory
from qwen_aio.cli.page import PAGE_PORT, SERVER_URL, serve_page
from qwen_aio.config import Settings, check_exposure, prompts_dir, state_dir, status_dir
from qwen_aio.core import Task, WorkerStatus
from qwen_aio.errors import InvalidSettings
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.door import Door
from qwen_aio.serving.runs import Runs
from qwen_aio.serving.server import bind, bind_first_free, run_server
from qwen_aio.status_file import StatusFile
from qwen_aio.tasks.loader import load_tasks, tasks_hash
from qwen_aio.worker.app import create_worker_app
from qwen_aio.worker.calls import EngineCalls
from qwen_aio.worker.health import NoEngine, ProcessMeter, WorkerHealth
from qwen_aio.worker.heartbeat import Heartbeat

if TYPE_CHECKING:
    from fastapi import FastAPI

    from qwen_aio.engine.service import EngineService

FIRST_WORKER_PORT = 7861
STATUS_LOCK_S = 2.0  # a beat that cannot have the file for so long skips a turn

Mode = Literal["single", "worker"]
Load = Callable[..., AbstractAsyncContextManager[Loaded]]  # as loading.loaded
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `app.py` understands."""
    parser.add_argument(
        "--mode",
        choices=("single", "worker", "ui"),
        default="single",
        help="page and model, model alone, or page alone [single]",
    )
    parser.add_argument("--url", help="server behind the page of --mode ui [http://127.0.0.1:8000]")
    add_settings_flags(parser)


def main(arguments: argparse.Namespace) -> int:
    """Serve until a signal; the exit status."""
    settings = settings_from(arguments)
    check_exposure(settings)
    log_to_stderr(settings)
    if arguments.mode == "ui":
        return serve_page(settings, url=arguments.url or SERVER_URL)
    if arguments.url:
        raise InvalidSettings("--url is the server behind the page: it goes with --mode ui alone", param="url")
    threads = prepare_process(stated_threads(settings))
    model = choose_model(settings)
    log_memory(settings, model)
    return serve(settings, model, mode=arguments.mode, threads=threads)


def serve(settings: Settings, model: ModelFolder, *, mode: Mode, threads: int, load: Load = loaded) -> int:
    """Be one worker until a signal; the exit status. Raises SetupError."""
    tasks = load_tasks(prompts_dir(settings))
    with _listening(settings, mode) as sock:
        worker = Worker(settings, tasks, model, mode=mode, sock=sock, threads=threads, load=load)
        return asyncio.run(worker.run())


class Worker:
    """One worker process, put together. Everything it owns ends with `run`."""

    def __init__(
        self,
        settings: Settings,
        tasks: Mapping[str, Task],
        model: ModelFolder,
        *,
        mode: Mode,
        sock: socket.socket,
        threads: int,
        load: Load = loaded,
    ) -> None:
        port: int = sock.getsockname()[1]
        self._settings = settings
        self._tasks = tasks
        self._model = model
        self._mode = mode
        self._sock = sock
        self._threads = threads
        self._load = load
        self._id = settings.id or f"qwen-{port}"
        self._url = url_of(settings.host, port)
        self._engine: EngineService | None = None
        self._calls: EngineCalls | None = None

    async def run(self) -> int:
        """Load, serve, end. Raises SetupError for what an operator must mend."""
        status_file = StatusFile(status_dir(self._settings) / "status.json", lock_timeout_s=STATUS_LOCK_S)
        with status_file.claimed(self._id, url=self._url) as first:
            health = self._health(first)
            door = Door()
            app = self._app(door, health)
            print(f"{told_model(self._model)}; open {self._url}", flush=True)
            heartbeat = Heartbeat(health, write=status_file.write, state=lambda: door.state)
            async with heartbeat.beating():
                return await run_server(app, sock=self._sock, door=door, life=lambda: self._live(door, health))

    async def _live(self, door: Door, health: WorkerHealth) -> None:
        """Load, open the door, and wait for the engine to fail, which it should not."""
        tasks_sha = tasks_hash(self._tasks)
        health.describe(model=self._model.name, model_sha="", precision="", tasks_sha=tasks_sha, golden={})
        async with self._load(self._settings, self._tasks, self._model, threads=self._threads) as ready:
            self._engine = ready.engine
            self._calls = EngineCalls(
                ready.engine, self._tasks, model=self._model.name, worker=self._id, record=health.record
            )
            health.describe(
                model=self._model.name,
                model_sha=ready.sha,
                precision=ready.verdict.precision,
                tasks_sha=tasks_sha,
                golden=ready.golden,
            )
            door.open(Runs(self._calls))
            log.info("ready worker=%s model=%s url=%s", self._id, self._model.name, self._url)
            raise await ready.engine.wait_failed()

    def _health(self, first: WorkerStatus) -> WorkerHealth:
        return WorkerHealth(
            first,
            engine=lambda: self._engine.snapshot() if self._engine else NoEngine(),
            meter=ProcessMeter(threads=self._threads),
        )

    def _app(self, door: Door, health: WorkerHealth) -> FastAPI:
        create = partial(
            create_worker_app,
            door,
            calls=lambda: self._ready_calls(door),
            status=lambda: health.latest,
            allowed_hosts=allowed_hosts(self._settings),
            proxy=proxy_settings(self._settings),
        )
        if self._mode == "worker":
            return create()
        prepare_gradio(os.environ, state=state_dir())
        # Here and not above: gradio takes seconds to import, and a worker has no page.
        from qwen_aio.ui.mount import CONTENT_SECURITY_POLICY, mount_page
        from qwen_aio.ui.page import build_page
        from qwen_aio.ui.refusals import worded
        from qwen_aio.ui.service import About

        about = About(self._model.name, self._model.is_bundled, __version__, self._id)
        app = create(page_csp=CONTENT_SECURITY_POLICY, worded=worded)
        return mount_page(app, build_page(door, about=lambda: about))

    def _ready_calls(self, door: Door) -> EngineCalls:
        if self._calls is None:
            assert door.refusal is not None
            raise door.refusal
        return self._calls


def _listening(settings: Settings, mode: Mode) -> socket.socket:
    """The port is taken before anything is loaded: a mistake is told at once."""
    if settings.port is not None:
        return bind(settings.host, settings.port)
    if mode == "single":
        return bind(settings.host, PAGE_PORT)
    return bind_first_free(settings.host, FIRST_WORKER_PORT)
