"""Forks workers off a process that has loaded the weights, which all of them then share.

Copy on write: no process writes to weights, so one copy serves all. A fork takes only the thread
that calls it, so the process must not have started any that computes. The caller decides what a
fork becomes: this room knows no worker.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from qwen_aio.cluster import lifeline
from qwen_aio.cluster.protocol import Ended, ForkMessage, Messages, Started, WeightsLoaded, WorkerSpec, encode

CHUNK, MAX_FILES = 4096, 64


class ForkServer:
    """Forks workers, and reports how each one ended. Has one thread, and no event loop."""

    def __init__(self, control: socket.socket, *, become: Callable[[WorkerSpec], int]) -> None:
        """`become` runs in the fork until the worker ends; it returns the exit status."""
        self._control = control
        self._become = become
        self._messages = Messages()
        self._logs: deque[int] = deque()  # came with messages that are not complete yet

    def run(self) -> int:
        """Until the cluster closes the socket; the exit status."""
        woken, waking = socket.socketpair()
        waking.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes instead of being ignored
        signal.set_wakeup_fd(waking.fileno())
        gc.freeze()  # a collection would write to every object, and end the sharing of its page
        self._send(WeightsLoaded())
        while True:
            readable, _, _ = select.select([self._control, woken], [], [])
            if woken in readable:
                woken.recv(CHUNK)
                self._reap()
            if self._control in readable and not self._receive():
                return 0

    def _receive(self) -> bool:
        chunk, logs, _, _ = socket.recv_fds(self._control, CHUNK, MAX_FILES)
        self._logs.extend(logs)
        for spec in self._messages.feed(chunk):
            assert isinstance(spec, WorkerSpec)
            self._fork(spec, self._logs.popleft())
        return bool(chunk)

    def _fork(self, spec: WorkerSpec, log: int) -> None:
        sys.stdout.flush()  # or the fork would print it again
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._run_fork(spec, log)
        os.close(log)
        self._send(Started(spec.id, pid))

    def _run_fork(self, spec: WorkerSpec, log: int) -> NoReturn:
        status = 1
        try:
            self._leave(log)
            status = self._become(spec)
        except BaseException:  # broad, at the top of a process: the lines above are the server's
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)  # also when the log has no reader any more

    def _leave(self, log: int) -> None:
        """In the fork: keep nothing of the server but what it has loaded."""
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

    def _reap(self) -> None:
        with suppress(ChildProcessError):  # there is no worker any more
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._send(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _send(self, message: ForkMessage) -> None:
        self._control.sendall(encode(message))
