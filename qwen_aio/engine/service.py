"""The bridge between asyncio and the engine thread.

Requests go in through one inbox, outputs come back through `call_soon_threadsafe`. Every caller
gets an end: its result, its own error, or EngineStopped at once when the thread dies. Knows no HTTP
and no tensors.

    engine, inbox (reading)     engine thread
    streams, failure            event loop
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import abc
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from qwen_aio.core import ContextLimits, Prompt, Sampling, Segments
from qwen_aio.engine.requests import FAILED, Counters, EngineSnapshot, Generate, Item, Output, Pin, Pinned, Score, Work
from qwen_aio.engine.step_engine import StepEngine
from qwen_aio.errors import EngineStopped, QueueFull, QwenAioError, RequestFailed
from qwen_aio.result import Completion, Scores, TextDelta

Given = TypeVar("Given")
Made = TypeVar("Made")
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Stream:
    """One open request. Its queue holds at most `max_tokens` deltas, however slow the reader."""

    outputs: asyncio.Queue[Item | QwenAioError] = field(default_factory=asyncio.Queue)
    is_finished: bool = False  # no more outputs come


class EngineService:
    """Created anywhere, started and used on one event loop."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine  # engine thread only, except its constants
        self._inbox: SimpleQueue[abc.Callable[[], None] | None] = SimpleQueue()  # loop -> engine thread; None: stop
        self._counters = Counters()  # replaced whole by the engine thread, read by the loop
        self._streams: dict[str, _Stream] = {}  # event loop only
        self._numbers = itertools.count()  # event loop only
        self._failure: BaseException | None = None  # event loop only; also after a regular close
        self._failed = asyncio.Event()  # the thread died of an error
        self._beside_engine = asyncio.Lock()  # one at a time: the cores are the engine's
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def context(self) -> ContextLimits:
        """The limits of prompts and answers."""
        return self._engine.context

    def start(self) -> None:
        """Start the engine thread; outputs come back to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def pin(self, head: Segments) -> int:
        """Compute and pin a prefix of prompts; the number of its tokens.

        Raises InvalidSettings if the memory is too small for it, EngineStopped.
        """
        pinned = await self._outcome("pin", Pin(head))
        assert isinstance(pinned, Pinned)
        return pinned.num_tokens

    async def score(self, request_id: str, prompt: Prompt, continuations: abc.Sequence[str]) -> Scores:
        """Log probabilities of the continuations. Cancelling the caller frees the sequence.

        Raises InvalidRequest, ContextTooSmall, QueueFull, RequestFailed, EngineStopped.
        """
        scores = await self._outcome(request_id, Score(prompt, tuple(continuations)))
        assert isinstance(scores, Scores)
        return scores

    async def generate(
        self,
        request_id: str,
        prompt: Prompt,
        sampling: Sampling,
        *,
        resume: abc.Sequence[int] = (),
        top_logprobs: int | None = None,
        json_schema: str | None = None,
    ) -> abc.AsyncGenerator[TextDelta | Completion]:
        """TextDelta*, Completion. Closing the iterator frees the sequence.

        `resume`: the tokens of an answer that another engine began; only what follows is yielded.
        `top_logprobs`: likely tokens to list beside each sampled one; None: no log probabilities.
        `json_schema`, written as JSON: the answer keeps to it.
        Raises InvalidRequest, ContextTooSmall, QueueFull, RequestFailed, EngineStopped.
        """
        self._check_open()  # before a schema is compiled in vain
        grammar = None if json_schema is None else await self._beside(self._engine.compile, json_schema)
        work = Generate(prompt, sampling, tuple(resume), top_logprobs, grammar)
        async with aclosing(self._outputs(request_id, work)) as outputs:
            async for item in outputs:
                assert isinstance(item, TextDelta | Completion)
                yield item

    async def tokenize(self, prompt: Prompt) -> list[int]:
        """The token ids of the whole `prompt`; nothing is cut. Raises InvalidRequest, EngineStopped."""
        return await self._beside(self._engine.encode, prompt)

    def decode(self, token_ids: abc.Sequence[int], *, stop: abc.Sequence[str]) -> str:
        """The text of an answer that is certain after these tokens; `stop` as in its Sampling."""
        return self._engine.decode(token_ids, stop=stop)

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin."""
        return self._engine.divide(text)

    def snapshot(self) -> EngineSnapshot:
        """Counts as of the last step; call it on the loop."""
        counters = self._counters
        running = 0 if self._failure else counters.running
        return EngineSnapshot(
            queue_depth=max(0, self._num_open() - running),
            running=running,
            capacity=self._engine.limits.max_running,
            completed=counters.completed,
            steps=counters.steps,
            generated_tokens=counters.generated_tokens,
            failure=f"the engine has stopped: {self._failure!r}" if self._failed.is_set() else None,
        )

    async def wait_failed(self) -> BaseException:
        """Wait until the engine thread dies of an error; that error. A close does not count."""
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    async def close(self) -> None:
        """Stop the thread after its current step. Open requests get EngineStopped at once."""
        self._fail_all(EngineStopped("the engine is shutting down"))
        if self._thread.is_alive():
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)  # a thread still alive at exit makes torch abort

    # ---- event loop ----

    async def _beside(self, work: abc.Callable[[Given], Made], given: Given) -> Made:
        """What `work` makes of `given`, in a thread beside the engine's. Raises EngineStopped."""
        if self._failure is not None:
            raise _stopped(self._failure)
        async with self._beside_engine:
            return await asyncio.to_thread(work, given)

    async def _outcome(self, request_id: str, work: Work) -> Item:
        """The single output of a request."""
        async with aclosing(self._outputs(request_id, work)) as outputs:
            return await anext(outputs)

    async def _outputs(self, request_id: str, work: Work) -> abc.AsyncGenerator[Item]:
        """Submit the request and pass its outputs on; abort it if the caller leaves early."""
        self._check_open()
        name = f"{request_id}#{next(self._numbers)}"  # a client may use one id twice
        stream = self._streams[name] = _Stream()
        self._inbox.put(partial(self._add, name, work, arrived_s=self._engine.clock()))
        try:
            while not (stream.is_finished and stream.outputs.empty()):
                item = await stream.outputs.get()
                if isinstance(item, QwenAioError):
                    raise item
                yield item
        finally:
            del self._streams[name]
            if not stream.is_finished:
                self._inbox.put(partial(self._engine.abort, name))

    def _check_open(self) -> None:
        limits = self._engine.limits
        if self._failure is not None:
            raise _stopped(self._failure)
        if self._num_open() >= limits.max_running + limits.max_queue:
            raise QueueFull(f"{limits.max_queue} requests are waiting already; try again", retry_after_s=1)

    def _num_open(self) -> int:
        return sum(not stream.is_finished for stream in self._streams.values())

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)  # None: the caller has left
            if stream is not None and not stream.is_finished:
                stream.is_finished = output.is_last
                stream.outputs.put_nowait(output.item)

    def _fail(self, failure: BaseException) -> None:
        """The last callback of a thread that died."""
        self._fail_all(failure)
        self._failed.set()

    def _fail_all(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        for stream in self._streams.values():
            if not stream.is_finished:
                stream.is_finished = True
                stream.outputs.put_nowait(_stopped(failure))

    # ---- engine thread ----

    def _run(self) -> None:
        try:
            while self._take_commands():
                outputs = self._engine.step()
                self._counters = self._engine.counters
                if outputs and not self._post(partial(self._deliver, outputs)):
                    return
        except BaseException as exc:  # broad, at the top of the thread: no caller may wait for ever
            logger.exception("the engine thread died")
            self._post(partial(self._fail, exc))

    def _take_commands(self) -> bool:
        """Take all commands; block while there is nothing to compute. False means stop."""
        while not self._engine.has_work or not self._inbox.empty():
            command = self._inbox.get()
            if command is None:
                return False
            command()
            self._counters = self._engine.counters
        return True

    def _add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        try:
            self._engine.add(request_id, work, arrived_s=arrived_s)
        except QwenAioError as exc:
            self._post(partial(self._deliver, [Output(request_id, exc)]))
        except Exception:  # broad: ends this request alone, like the errors above
            logger.exception("request failed id=%s", request_id)
            self._engine.abort(request_id)
            self._post(partial(self._deliver, [Output(request_id, RequestFailed(FAILED))]))

    def _post(self, callback: abc.Callable[[], None]) -> bool:
        """Run `callback` on the loop; False if the loop is closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True


def _stopped(failure: BaseException) -> EngineStopped:
    """A new exception for each caller, chained to the failure."""
    error = EngineStopped("the engine has stopped; nothing can be computed until the process is restarted")
    error.__cause__ = failure
    return error
