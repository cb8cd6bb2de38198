"""The process that loads the weights once and forks workers, which all share them. Started by `cluster`, not by people.

    python -m qwen_aio.cli.nursery --control FILE [settings]

Copy on write: nobody writes to weights, so one copy serves all. A fork takes the thread that calls it and no other, so
that this process must not have started any that computes: torch gets one thread here, and no more is computed than the
comparison of a small model (settling.py). The workers answer the golden cases, with as many threads as they get. A
worker lives on when this process dies (nursery_link.py), and one that dies harms no other.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from qwen_aio.cli.flags import add_settings_flags, settings_from
from qwen_aio.cli.listening import log_to_stderr
from qwen_aio.cli.loading import choose_model, load_weights, loaded, prepare_process
from qwen_aio.cli.main import exit_status, run_process
from qwen_aio.cli.serve import Load, serve
from qwen_aio.cli.settling import settle_precision
from qwen_aio.cluster import lifeline
from qwen_aio.cluster.birth import Born, Ended, Loaded, Message, Messages, Wanted, encode
from qwen_aio.config import Settings
from qwen_aio.models.find import ModelFolder

CHUNK, MAX_FILES = 4096, 64


class Nursery:
    """Forks a worker whenever one is wanted, and tells how each one ended. Has one thread, and no event loop."""

    def __init__(self, control: socket.socket, *, become: Callable[[Wanted], int]) -> None:
        """`become` is a worker's whole life; what it returns is the exit status of the fork."""
        self._control = control
        self._become = become
        self._messages = Messages()
        self._logs: deque[int] = deque()  # came with messages that are not complete yet
        self._num_living = 0

    def run(self) -> int:
        """Until the cluster lets go of the socket; the exit status."""
        woken, waking = socket.socketpair()
        for end in (woken, waking):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes instead of being ignored
        signal.set_wakeup_fd(waking.fileno())
        gc.freeze()  # a collection would write to every object, and what is written to is not shared any more
        self._tell(Loaded())
        while True:
            readable, _, _ = select.select([self._control, woken], [], [])
            if woken in readable:
                woken.recv(CHUNK)
                self._reap()
            if self._control in readable and not self._take_wishes():
                return 0

    def _take_wishes(self) -> bool:
        chunk, logs, _, _ = socket.recv_fds(self._control, CHUNK, MAX_FILES)
        self._logs.extend(logs)
        for wanted in self._messages.feed(chunk):
            assert isinstance(wanted, Wanted)
            self._fork(wanted, self._logs.popleft())
        return bool(chunk)

    def _fork(self, wanted: Wanted, log: int) -> None:
        sys.stdout.flush()  # or the fork would say it again
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._leave(wanted, log)
        os.close(log)
        self._num_living += 1
        self._tell(Born(wanted.id, pid))

    def _leave(self, wanted: Wanted, log: int) -> NoReturn:
        """In the fork: keep nothing of the nursery but what it has loaded, and live."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            for file in self._logs:
                os.close(file)
            os.setpgid(0, 0)
            for output in (1, 2):
                os.dup2(log, output)
            os.close(log)
            lifeline.hold()  # threads are not forked
            status = self._become(wanted)
        except BaseException:  # broad, at the top of a process: above this are the nursery's own lines, not to be run
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)  # also when nobody reads the log any more

    def _reap(self) -> None:
        while self._num_living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._num_living -= 1
            self._tell(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, message: Message) -> None:
        self._control.sendall(encode(message))


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
        _be_worker, settings, model, load=partial(loaded, weights=load_weights(settings, model, threads=1))
    )
    with socket.socket(fileno=control) as connected:
        return Nursery(connected, become=become).run()


def _be_worker(settings: Settings, model: ModelFolder, wanted: Wanted, *, load: Load) -> int:
    own = settings.model_copy(update={"id": wanted.id, "port": wanted.port, **dict(wanted.changes)})
    return exit_status(wanted.id, lambda: serve(own, model, mode="worker", threads=wanted.threads, load=load))


if __name__ == "__main__":
    raise SystemExit(run_process(main, program="nursery"))
