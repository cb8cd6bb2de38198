"""TLS on real sockets: versions, renewal while requests run, and clients that do not speak it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path

import pytest

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.config import Settings
from qwen_aio.core import Request
from qwen_aio.errors import InvalidSettings, ServerUnreachable
from qwen_aio.serving.transport.listener import Room
from qwen_aio.serving.transport.tls import Certificate
from qwen_aio.startup.tls import certificate, tls_to
from tests.certificates import Pair, make_pair
from tests.fakes import FakeEngine
from tests.served import WatchedEngine, Worker, served

DECISION = Request("失望", mode="sentiment")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path, "first")


def trusting(*pairs: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for each in pairs:
        context.load_verify_locations(each.certificate)
    return context


def url(there) -> str:
    return f"https://localhost:{there.port}"


async def name_of(port: int, context: ssl.SSLContext) -> str:
    """The name in the certificate that a new connection gets."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("peercert")
    writer.close()
    return dict(part for parts in found["subject"] for part in parts)["commonName"]


async def test_requests_and_streams_are_the_same(pair):
    engine = FakeEngine(pieces=("抱歉", "。"))
    async with (
        served(Worker(engine), certificate=Certificate(pair.certificate, pair.key)) as there,
        AsyncClient(url(there), tls=trusting(pair)) as client,
    ):
        assert (await client.run(DECISION)).decision.label == "negative"
        *_, last = [event async for event in client.stream(Request("a", mode="chat"))]
        assert last.result.answer.text == "抱歉。"
        assert (await client.health())["state"] == "ready"


async def test_whoever_checks_refuses_a_certificate_that_nobody_vouches_for(pair, tmp_path):
    async with served(Worker(FakeEngine()), certificate=Certificate(pair.certificate, pair.key)) as there:
        for context in (None, trusting(make_pair(tmp_path, "other"))):
            async with AsyncClient(url(there), tls=context) as client:
                with pytest.raises(ServerUnreachable, match="vouches for its certificate"):
                    await client.run(DECISION)
        async with AsyncClient(f"https://localhost.localdomain:{there.port}", tls=trusting(pair)) as client:
            with pytest.raises(ServerUnreachable):
                await client.run(DECISION)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_from_1_2_on_are_spoken(pair, version):
    context = trusting(pair)
    context.minimum_version = context.maximum_version = version
    async with served(Worker(FakeEngine()), certificate=Certificate(pair.certificate, pair.key)) as there:
        assert await name_of(there.port, context) == "first"


def test_older_versions_are_not(pair):
    context = Certificate(pair.certificate, pair.key).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    # By a handshake in memory, since a client of today's openssl cannot be made to offer less on every system.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        asking.do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        answering.do_handshake()


async def test_a_renewed_certificate_counts_at_once_and_breaks_no_connection(pair, tmp_path):
    second = make_pair(tmp_path, "second")
    trust = trusting(pair, second)
    engine = WatchedEngine(gate=asyncio.Event())
    async with (
        served(Worker(engine), certificate=Certificate(pair.certificate, pair.key)) as there,
        AsyncClient(url(there), tls=trust) as client,
    ):
        running = asyncio.ensure_future(client.run(DECISION))
        await engine.begun.wait()
        pair.take_from(second)
        assert await name_of(there.port, trust) == "second"
        engine.gate.set()
        assert (await running).decision.label == "negative"


@pytest.mark.parametrize("broken", [b"", b"no PEM", None])
async def test_a_broken_renewal_leaves_the_certificate_before(pair, tmp_path, caplog, broken):
    trust, second = trusting(pair), make_pair(tmp_path, "second")
    own = Certificate(pair.certificate, pair.key)
    async with served(Worker(FakeEngine()), certificate=own) as there:
        if broken is None:
            pair.key.unlink()
        else:
            pair.key.write_bytes(broken)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await name_of(there.port, trust) == "first"
        assert len([record for record in caplog.records if "one before stays" in record.message]) == 1
        pair.take_from(second)
        assert await name_of(there.port, trusting(second)) == "second"


async def test_whoever_does_not_speak_tls_is_hung_up_on_and_nobody_waits_for_a_handshake(pair):
    own = Certificate(pair.certificate, pair.key)
    async with served(Worker(FakeEngine()), certificate=own, room=Room(40, 2)) as there:
        silent = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(20)]
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not (await reader.read()).startswith(b"HTTP")
        async with AsyncClient(url(there), tls=trusting(pair)) as client:
            assert (await client.run(DECISION)).decision.label == "negative"
        for _, each in (*silent, (reader, writer)):
            each.close()


async def test_a_probe_gets_through_handshakes_that_do_not_end(pair):
    own = Certificate(pair.certificate, pair.key)
    async with served(Worker(FakeEngine()), certificate=own, room=Room(2, 2)) as there:
        silent = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(20)]
        for _ in range(3):
            reader, writer = await asyncio.open_connection("localhost", there.port, ssl=trusting(pair))
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
        for reader, _ in silent[2:-2]:  # those before are within the room, those after came last
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        for _, writer in silent:
            writer.close()


# ---- settings ----


def test_files_that_are_no_pair_are_refused_at_start(pair, tmp_path):
    other = make_pair(tmp_path, "other")
    (tmp_path / "empty").touch()
    for chain, key in [(pair.certificate, other.key), (tmp_path / "none", pair.key), (tmp_path / "empty", pair.key)]:
        with pytest.raises(InvalidSettings, match="tls-certificate"):
            certificate(Settings(tls_certificate=chain, tls_key=key))
    with pytest.raises(InvalidSettings, match="goes with"):
        certificate(Settings(tls_key=pair.key))
    assert certificate(Settings()) is None
    whole = tmp_path / "whole.pem"
    whole.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert certificate(Settings(tls_certificate=whole)) is not None


def test_others_are_checked_and_this_machines_own_are_not(pair, tmp_path):
    own = tls_to(Settings(tls_certificate=pair.certificate, host="10.0.0.7"))
    for address in ("https://127.0.0.1:8000", "https://localhost:8000", "https://[::1]:8000", "https://10.0.0.7:8000"):
        assert own(address).verify_mode == ssl.CERT_NONE
    assert own("https://10.0.0.8:8000") is None
    assert tls_to(Settings())("https://127.0.0.1:8000") is None
    checked = tls_to(Settings(tls_ca=pair.certificate))("https://10.0.0.8:8000")
    assert checked.verify_mode == ssl.CERT_REQUIRED and checked.check_hostname
    (tmp_path / "empty").touch()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InvalidSettings, match="tls-ca"):
            tls_to(Settings(tls_ca=path))
