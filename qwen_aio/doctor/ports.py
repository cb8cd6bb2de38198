"""The ports of a start: free, or who answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.doctor.finding import Finding
from qwen_aio.errors import InvalidSettings, KeyRefused, ServerUnreachable
from qwen_aio.serving.transport.server import bind

WAIT_S = 2.0  # for whoever has the port
MAX_CHARS = 64  # of what a server says about itself
ClientAt = Callable[[str, int], AsyncClient]  # host, port


@dataclass(frozen=True)
class PortState:
    """`refusal` is why a server cannot listen there; empty if it can. `owner` is the one of ours that does."""

    port: int
    refusal: str = ""
    owner: str = ""


def port_findings(states: Iterable[PortState]) -> list[Finding]:
    """A line for all that are free, and one for each that is not."""
    states = list(states)
    free = [str(each.port) for each in states if not each.refusal]
    found = [Finding("ok", f"free: {', '.join(free)}")] if free else []
    return found + [_taken(each) for each in states if each.refusal]


def _taken(state: PortState) -> Finding:
    if state.owner:
        found = f"{state.owner} answers on port {state.port} already"
        return Finding("note", found, "another start needs another port")
    return Finding("problem", state.refusal)


def read_ports(addresses: Iterable[tuple[str, int, str]], client_at: ClientAt) -> list[PortState]:
    """Of host, port, and the flag that changes it. Each is taken for a moment."""

    async def read_all() -> list[PortState]:
        return await asyncio.gather(*(_read_port(*address, client_at) for address in addresses))

    return asyncio.run(read_all())


async def _read_port(host: str, port: int, flag: str, client_at: ClientAt) -> PortState:
    try:
        bind(host, port, flag=flag).close()
    except InvalidSettings as exc:
        return PortState(port, refusal=exc.message, owner=await _owner(client_at(host, port)))
    return PortState(port)


async def _owner(client: AsyncClient) -> str:
    """The server of ours there; empty if what is there is not one, or says nothing for too long."""
    try:
        async with client, asyncio.timeout(WAIT_S):
            return described_server(await client.health())
    except KeyRefused:
        return "a server that asks for a key, as ours do,"
    except (ServerUnreachable, TimeoutError):
        return ""


def described_server(record: Mapping[str, Any]) -> str:
    """By its record of /health, which may be anybody's; empty for one that none of ours has."""
    state = str(record.get("state"))[:MAX_CHARS]
    if "generation" in record:
        return f"worker {str(record.get('id'))[:MAX_CHARS]} ({state})"
    if "workers" in record:
        return f"a balancer ({state})"
    return f"a page ({state})" if "answers" in record else ""
