"""Forks workers off a process that has loaded the weights, which all of them then share.

Copy on write: nobody writes to weights, so one copy serves all. A fork takes the thread that calls it and no other, so
that the process must not have started any that computes. What a fork becomes is handed in: this room knows no worker.
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
from typing import NoReturn

from qwen_aio.cluster import lifeline
from qwen_aio.cluster.protocol import Ended, ForkMessage, Messages, Started, WeightsLoaded, WorkerSpec, encode

CHUNK, MAX_FILES = 4096, 64


class ForkServer:
    """Forks a worker whenever one is wanted, and tells how each one ended. Has one thread, and no event loop."""

    def __init__(self, control: socket.socket, *, become: Callable[[WorkerSpec], int]) -> None:
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
        self._tell(WeightsLoaded())
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
            assert isinstance(wanted, WorkerSpec)
            self._fork(wanted, self._logs.popleft())
        return bool(chunk)

    def _fork(self, wanted: WorkerSpec, log: int) -> None:
        sys.stdout.flush()  # or the fork would say it again
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._leave(wanted, log)
        os.close(log)
        self._num_living += 1
        self._tell(Started(wanted.id, pid))

    def _leave(self, wanted: WorkerSpec, log: int) -> NoReturn:
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

    def _tell(self, message: ForkMessage) -> None:
        self._control.sendall(encode(message))
