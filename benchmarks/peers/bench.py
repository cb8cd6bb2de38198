"""What all measures share: models, texts, chosen sides, and how those are started."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from benchmarks.peers.asking import Server, serving
from benchmarks.peers.figures import Round
from benchmarks.peers.models import QUANTISATIONS, Models
from benchmarks.peers.process import THREADS, Process, output, started
from benchmarks.peers.servers import Api, Ask, llama_server, transformers_serve, worker
from benchmarks.peers.texts import Texts
from benchmarks.peers.words import Words

Contestant = Callable[[int], Awaitable[Round]]  # one round of one side, by its number


@dataclass(frozen=True)
class Ours:
    """A way to start our engine."""

    precision: str
    prefix: tuple[str, ...] = ()  # of the command


OURS = {
    "ours-int8": Ours("int8"),
    "ours-int4": Ours("int4"),
    "ours-fp32": Ours("fp32"),
    "ours-torch": Ours("int8", ("env", "QWEN_AIO_KERNEL=torch")),  # the forward pass without the C++ kernels
}
SIDES = (*OURS, *QUANTISATIONS, "openvino", "serve", "generate")


@dataclass(frozen=True)
class Bench:
    """Immutable. What it starts sleeps until its turn and ends with the `stack` that it was given."""

    model: Path
    peers: Path
    models: Models
    texts: Texts
    words: Words
    sides: tuple[str, ...]
    seconds: float  # of asking one server one thing

    def chosen(self, *sides: str) -> list[str]:
        return [side for side in sides if side in self.sides]

    def decisions(self, api: Api) -> Iterator[Ask]:
        """For every side the same texts in the same order; a text comes again when all have been."""
        return map(api.decision, cycle(self.texts.decisions))

    async def servers(
        self, stack: AsyncExitStack, measure: str, *, slots: int, is_chat: bool = False
    ) -> dict[str, Server]:
        """All chosen sides that serve HTTP; for chats those that are asked for them."""
        apis = await self.apis(stack, slots=slots)
        wanted = {side: api for side, api in apis.items() if api.chat or not is_chat}
        return {side: await self.serving(stack, measure, side, api) for side, api in wanted.items()}

    async def apis(self, stack: AsyncExitStack, *, slots: int) -> dict[str, Api]:
        """All chosen sides that serve HTTP; none is started."""
        plain = self.models.plain
        apis: dict[str, Api] = {}
        for side in self.chosen(*OURS):
            ours = OURS[side]
            apis[side] = await stack.enter_async_context(
                worker(self.model, precision=ours.precision, prefix=ours.prefix)
            )
        for side in self.chosen(*QUANTISATIONS):
            apis[side] = llama_server(self.peers, plain.gguf(QUANTISATIONS[side]), self.texts, slots=slots)
        for side in self.chosen("serve"):
            apis[side] = transformers_serve(self.peers, plain.hf, self.texts)
        return apis

    async def serving(self, stack: AsyncExitStack, measure: str, side: str, api: Api) -> Server:
        """The server of `api`."""
        return await stack.enter_async_context(serving(api, log=self._log(measure, side)))

    async def drivers(
        self, stack: AsyncExitStack, measure: str, *, modes: tuple[str, ...] = ("plain",)
    ) -> dict[str, Process]:
        """All chosen sides that are driven in process; OpenVINO once for each of `modes`."""
        talking, threads = self.models.talking, str(THREADS)
        ours = (sys.executable, "-m", "benchmarks.peers.drive_engine", talking.hf)
        python = self.peers / "openvino/bin/python"
        theirs = (python, "-m", "benchmarks.peers.drive_openvino", talking.openvino, threads)
        found = {}
        for side in self.chosen(*OURS):
            way = OURS[side]
            found[side] = await self.driver(stack, measure, side, *way.prefix, *ours, way.precision, threads)
        for side in self.chosen("openvino"):
            for mode in modes:
                name = side if len(modes) == 1 else f"{side} {mode}"
                found[name] = await self.driver(stack, measure, name, *theirs, mode)
        return found

    async def driver(self, stack: AsyncExitStack, measure: str, side: str, *command: str | Path) -> Process:
        """A driver (driving.py) that has loaded."""
        process = await stack.enter_async_context(started(*command, log=self._log(measure, side), is_read=True))
        await process.answer()
        process.pause()
        return process

    async def llama_tool(self, tool: str, side: str, *flags: str) -> str:
        """What llama-bench or llama-batched-bench says of the talking model. Raises SideFailed."""
        model = ("-m", self.models.talking.gguf(QUANTISATIONS[side]))
        return await output(self.peers / "llama.cpp" / "bin" / tool, *model, *flags, log=self._log(tool, side))

    def _log(self, measure: str, side: str) -> Path:
        return self.peers / "logs" / f"{measure}-{side.replace(' ', '-')}.log"
