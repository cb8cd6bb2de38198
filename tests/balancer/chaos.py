"""A TCP proxy before a worker that does to its requests what bad networks and dying processes do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

CALL = b"POST /internal/call"


@dataclass
class Fault:
    """What happens to the response of a request. Bytes are counted from its first one, headers included."""

    reset_after: int | None = None  # so many bytes pass, then the connection is reset
    hang_after: int | None = None  # so many bytes pass, then nothing does
    reply: bytes | None = None  # this is said instead, and the connection closed
    is_sliced: bool = False  # every byte travels alone
    times: int | None = None  # so many requests; None: all


class ChaosProxy:
    """Health and tasks pass untouched; engine requests meet `fault`. `kill` is a process that dies, `revive` its restart."""

    def __init__(self, target: int) -> None:
        self.fault = Fault()
        self.calls = 0
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def revive(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, up_writer}
        faults: list[Fault] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._up(reader, up_writer, writer, faults))
                tasks.create_task(self._down(up_reader, writer, faults))
        except* (OSError, EOFError):
            pass
        finally:
            self._writers -= {writer, up_writer}
            up_writer.close()
            writer.close()

    async def _up(
        self,
        reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
        faults: list[Fault],
    ) -> None:
        while chunk := await reader.read(65536):
            if chunk.startswith(CALL):
                self.calls += 1
                faults[:] = [replace(self._next_fault())]  # a new object: counting begins anew
                if faults[0].reply is not None:
                    writer.write(faults[0].reply)
                    await writer.drain()
                    raise EOFError
            up_writer.write(chunk)
            await up_writer.drain()
        raise EOFError

    def _next_fault(self) -> Fault:
        if self.fault.times is None:
            return self.fault
        self.fault.times -= 1
        return self.fault if self.fault.times >= 0 else Fault()

    async def _down(self, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: list[Fault]) -> None:
        passed, current = 0, None
        while chunk := await up_reader.read(65536):
            fault = faults[0] if faults else Fault()
            if fault is not current:
                passed, current = 0, fault
            limit = fault.reset_after if fault.reset_after is not None else fault.hang_after
            allowed = chunk if limit is None else chunk[: max(limit - passed, 0)]
            passed += len(chunk)
            for piece in (allowed[i : i + 1] for i in range(len(allowed))) if fault.is_sliced else (allowed,):
                writer.write(piece)
                await writer.drain()
            if limit is not None and passed >= limit:
                if fault.reset_after is not None:
                    _reset(writer)
                    raise EOFError
                await asyncio.Event().wait()
        raise EOFError


@asynccontextmanager
async def chaos_before(port: int) -> AsyncIterator[ChaosProxy]:
    proxy = ChaosProxy(port)
    await proxy.revive()
    try:
        yield proxy
    finally:
        proxy.kill()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN, as when a process dies with data unread."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:  # it may have been closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
