import asyncio
import json

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse

from qwen_aio.serving.guard import MAX_DISCARDED_BYTES, Guard
from qwen_aio.serving.transport.target import OriginForm
from qwen_aio.wire.request import MAX_BODY_BYTES
from tests.fakes import FakeEngine
from tests.served import Worker, served

JSON = {"content-type": "application/json"}


class RecordingApp:
    """The application that a guard protects: remembers the bodies that reach it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        self.bodies.append(await request.body())
        reply = HTMLResponse("<p>") if request.url.path == "/page" else JSONResponse({"id": request.state.request_id})
        await reply(scope, receive, send)


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


async def fetch(
    app, method: str = "POST", path: str = "/", *, headers=(), chunks=(b"",), more_body=False
) -> httpx.Response:
    """One request, byte for byte as given; `more_body`: the sender never finishes."""
    sent: list[dict] = []
    arriving = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    arriving[-1]["more_body"] = more_body

    async def receive() -> dict:
        return arriving.pop(0) if arriving else await asyncio.Future()

    async def send(message: dict) -> None:
        sent.append(message)

    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    if not any(name == "host" for name, _ in pairs):
        pairs.append(("host", "localhost"))
    raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs if value is not None]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": raw,
        "query_string": b"",
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)


def code(response: httpx.Response) -> str:
    assert len(response.content) < 1000
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return error["code"]


# ---- request id and headers ----


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
async def test_a_sane_request_id_is_kept(app, given):
    response = await fetch(Guard(app), headers={"x-request-id": given})
    assert response.headers["x-request-id"] == response.json()["id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\r\nset-cookie: x", "\x1b[31m", "ä", "a/b", "a\n"])
async def test_any_other_request_id_is_replaced(app, given):
    response = await fetch(Guard(app), headers={"x-request-id": given})
    assert len(response.headers["x-request-id"]) == 32
    assert int(response.headers["x-request-id"], 16)


async def test_every_reply_has_safe_headers_and_html_a_policy(app):
    guard = Guard(app, page_csp="default-src 'none'")
    plain, page = await fetch(guard), await fetch(guard, "GET", "/page")
    refused = await fetch(guard, headers={"host": "evil.com"})
    for response in (plain, page, refused):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in response.headers if name.startswith("access-control")]
    assert page.headers["content-security-policy"] == "default-src 'none'"
    assert "content-security-policy" not in plain.headers


# ---- C1: Host ----


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7861", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7860", "box.lan:80", "[fd00::1]:9"],
)
async def test_our_names_are_served_on_any_port(app, host):
    guard = Guard(app, allowed_hosts=("Box.LAN", "fd00::1"))
    assert (await fetch(guard, "GET", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "localhost.evil.com",
        "evil.com:7861",
        "evil.localhost",
        "",
        ":7861",
        "localhost.",
        "localhost:",
        "localhost:99999999",
        "localhost:80:80",
        "localhost@evil.com",
        "evil.com/localhost",
        "localhost, evil.com",
        "127.0.0.1.nip.io",
        "127.1",
        "0.0.0.0",
        "::1",
        "[::1",
        "[::1]evil",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "localhost\x00",
        "localhost\n",
        "ｌocalhost".encode().decode("latin-1"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
async def test_a_foreign_name_is_refused_whatever_is_asked(app, host, method):
    response = await fetch(Guard(app), method, headers={"host": host})
    assert (response.status_code, code(response)) == (400, "host_refused")
    assert app.bodies == []


async def test_no_host_and_two_hosts_are_refused(app):
    for headers in ([("host", None)], [("host", "localhost"), ("host", "localhost")]):
        assert code(await fetch(Guard(app), headers=headers)) == "host_refused"


@pytest.mark.parametrize("path", ["/", "/v1/run", "/v1/tasks", "/health", "/nowhere", "/livez/", "/livez/x", "//livez"])
async def test_the_name_is_checked_on_every_route_but_the_probes(path):
    response = await fetch(Worker(FakeEngine()).app, "GET", path, headers={"host": "evil.com"})
    assert (response.status_code, code(response)) == (400, "host_refused")


@pytest.mark.parametrize("hosts", [(), ("",), ("10.244.1.7:7861",), ("[fd00::7]:7861",), ("a b",), ("x", "y")], ids=str)
@pytest.mark.parametrize(("path", "status"), [("/livez", "ok"), ("/readyz", "ready")])
async def test_a_probe_is_answered_whatever_name_it_uses(hosts, path, status):
    headers = [("host", host) for host in hosts] or [("host", None)]
    for method in ("GET", "HEAD"):
        response = await fetch(Worker(FakeEngine()).app, method, path, headers=headers)
        assert response.status_code == 200
        assert response.content == b"" or response.json() == {"status": status}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_only_a_probe_that_reads_is_answered(path):
    for method, headers in (("POST", {"host": "evil.com"}), ("POST", [("host", None)]), ("DELETE", {"host": ""})):
        assert code(await fetch(Worker(FakeEngine()).app, method, path, headers=headers)) == "host_refused"
    response = await fetch(Worker(FakeEngine()).app, "OPTIONS", path, headers=[("host", None)])
    assert (response.status_code, code(response)) == (405, "method_not_allowed")


# ---- the target ----


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://localhost:7861/page", "/page"),
        ("HTTP://LocalHost/page", "/page"),
        ("https://127.0.0.1/p%61ge", "/page"),
        ("http://[::1]:7861/page", "/page"),
        ("http://localhost", "/"),
        ("http://localhost:1", "/"),
    ],
)
async def test_a_whole_url_is_a_path_and_a_host(target, path):
    asked = []

    async def app(scope, receive, send) -> None:
        asked.append((scope["path"], scope["raw_path"][:1], Headers(scope=scope)["host"].lower()))
        await JSONResponse({})(scope, receive, send)

    for host in ({"host": "evil.com"}, {"host": "localhost"}, [("host", None)]):
        assert (await fetch(OriginForm(Guard(app)), "GET", target, headers=host)).status_code == 200
    assert asked == [(path, b"/", target.lower().split("/")[2])] * 3


@pytest.mark.parametrize(
    "target",
    [
        *("http://evil.com/page", "http://evil.com", "http:///page", "http://user@localhost/page"),
        *("http://localhost:/page", "http://localhost,evil.com/page", "http://localhost.evil.com/page"),
    ],
)
async def test_the_host_in_a_url_counts_and_not_the_header(app, target):
    response = await fetch(OriginForm(Guard(app)), "GET", target, headers={"host": "localhost"})
    assert (response.status_code, code(response)) == (400, "host_refused")
    assert app.bodies == []


async def test_the_page_that_calls_must_be_of_the_host_in_the_url(app):
    for origin, status in (("http://localhost:1", 200), ("http://127.0.0.1:1", 403)):
        headers = {"host": "127.0.0.1:1", "origin": origin}
        assert (
            await fetch(OriginForm(Guard(app)), "POST", "http://localhost:1/", headers=headers)
        ).status_code == status


@pytest.mark.parametrize(
    "target", ["*", "localhost:7861", "livez", "", "ftp://localhost/", "http:/page", "file:///etc"]
)
@pytest.mark.parametrize("method", ["OPTIONS", "CONNECT", "GET", "POST"])
async def test_any_other_target_is_refused(app, target, method):
    response = await fetch(OriginForm(Guard(app)), method, target)
    assert (response.status_code, code(response)) == (400, "invalid_request")
    assert app.bodies == []


# ---- C2: Origin ----


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "null",
        "",
        "http://localhost",
        "http://localhost:7862",
        "http://localhost:7861.evil.com",
        "http://evil.com#localhost:7861",
        "http://user@localhost:7861",
        "file://",
        "chrome-extension://localhost:7861",
        "localhost:7861",
        "http://[localhost:7861",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
async def test_a_foreign_page_may_change_nothing(app, origin, method):
    headers = {"host": "localhost:7861", "origin": origin}
    response = await fetch(Guard(app), method, headers=headers)
    assert (response.status_code, code(response)) == (403, "origin_refused")
    assert app.bodies == []


@pytest.mark.parametrize(
    ("host", "origin"), [("localhost:80", "https://localhost"), ("localhost:8443", "https://localhost:8")]
)
async def test_another_port_of_this_machine_is_another_site(app, host, origin):
    assert code(await fetch(Guard(app), headers={"host": host, "origin": origin})) == "origin_refused"


async def test_one_foreign_origin_among_two_is_enough(app):
    headers = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.com")]
    assert code(await fetch(Guard(app), headers=headers)) == "origin_refused"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:7861", "http://localhost:7861"),
        ("localhost:7861", "https://LOCALHOST:7861"),
        ("localhost:80", "http://localhost"),
        ("localhost:443", "https://localhost"),
    ],
)
async def test_our_own_page_may_call(app, host, origin):
    headers = {"host": host, "origin": origin}
    assert (await fetch(Guard(app), headers=headers)).status_code == 200


async def test_a_foreign_page_may_read_no_more_than_its_browser_lets_it(app):
    response = await fetch(Guard(app), "GET", headers={"origin": "http://evil.com"})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


# ---- the body ----


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON", "application/json; charset=UTF-8", 'application/json;charset="utf-8"'],
)
async def test_json_is_passed_on_whole(app, media):
    response = await fetch(Guard(app), headers={"content-type": media}, chunks=[b'{"a"', b"", b": 1}"])
    assert response.status_code == 200
    assert app.bodies == [b'{"a": 1}']


@pytest.mark.parametrize(
    "media",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application/problem+json",
        "image/png",
        "text/plain; application/json",
    ],
)
async def test_anything_but_json_is_415(app, media):
    response = await fetch(Guard(app), headers={"content-type": media}, chunks=[b'{"a": 1}'])
    assert (response.status_code, code(response)) == (415, "unsupported_media")
    assert app.bodies == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
async def test_a_compressed_body_is_415_and_never_unpacked(app, encoding):
    response = await fetch(Guard(app), headers=JSON | {"content-encoding": encoding}, chunks=[b"\x1f\x8b"])
    assert (response.status_code, code(response)) == (415, "unsupported_media")


async def test_a_post_without_a_body_needs_no_type(app):
    assert (await fetch(Guard(app))).status_code == 200


async def test_the_largest_body_passes_and_one_byte_more_does_not(app):
    guard = Guard(app)
    half = b"x" * (MAX_BODY_BYTES // 2)
    assert (await fetch(guard, headers=JSON, chunks=[half, half])).status_code == 200
    for length in ({}, {"content-length": "10"}, {"content-length": str(MAX_BODY_BYTES + 1)}):
        response = await fetch(guard, headers=JSON | length, chunks=[half, half, b"x"])
        assert (response.status_code, code(response)) == (413, "body_too_large")
        message = response.json()["error"]["message"]
        assert str(MAX_BODY_BYTES + 1) in message and f"limit is {MAX_BODY_BYTES}" in message
        assert response.headers["connection"] == "close"
    assert len(app.bodies) == 1


async def test_an_endless_body_is_cut_off(app):
    chunks = [b"x" * MAX_BODY_BYTES] * (MAX_DISCARDED_BYTES // MAX_BODY_BYTES + 1)
    response = await fetch(Guard(app), headers=JSON, chunks=chunks, more_body=True)
    assert code(response) == "body_too_large"


async def test_a_body_announced_as_huge_is_not_waited_for(app):
    response = await fetch(Guard(app), headers=JSON | {"content-length": "9" * 18}, more_body=True)
    assert code(response) == "body_too_large"


@pytest.mark.parametrize("arriving", [{"type": "http.disconnect"}, {"type": "http.request", "body": b""}], ids=str)
async def test_a_client_that_has_gone_is_sent_nothing_and_is_no_error(arriving):
    async def left(scope, receive, send) -> None:
        raise ClientDisconnect

    async def receive() -> dict:
        return arriving

    async def send(message: dict) -> None:
        raise AssertionError(message)

    headers = [(b"host", b"localhost")]
    await Guard(left)({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)


async def test_a_body_that_does_not_come_is_408(app):
    response = await fetch(Guard(app, body_timeout_s=0.01), headers=JSON, chunks=[b"{"], more_body=True)
    assert (response.status_code, code(response)) == (408, "body_too_slow")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["-1", "abc", "1.5", "", "²", "9" * 5000])
async def test_a_length_that_is_none_is_refused(app, length):
    response = await fetch(Guard(app), headers=JSON | {"content-length": length}, chunks=[b"{}"])
    assert (response.status_code, code(response)) == (400, "invalid_request")


@pytest.mark.parametrize("headers", [[("x", "y" * 40_000)], [(f"x-{n}", "") for n in range(1000)]], ids=["one", "many"])
async def test_headers_are_bounded_together(app, headers):
    response = await fetch(Guard(app), headers=headers)
    assert (response.status_code, code(response)) == (400, "invalid_request")


async def test_two_ways_to_frame_a_body_are_refused(app):
    response = await fetch(Guard(app), headers=JSON | {"content-length": "2", "transfer-encoding": "chunked"})
    assert (response.status_code, code(response)) == (400, "invalid_request")


async def test_a_client_that_disconnects_inside_a_body_gets_no_answer(app):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    await Guard(app)(scope, receive, send)
    assert sent == app.bodies == []


# ---- broken HTTP (real sockets): a 4xx or a closed connection, never a 5xx, and the next one is served ----

RUN = json.dumps({"text": "失望", "mode": "sentiment"}).encode()
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
LENGTH = f"Content-Length: {len(RUN)}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"

SOUND = {
    "HTTP/1.0": b"POST /v1/run HTTP/1.0\r\n" + HEAD + LENGTH + b"\r\n" + RUN,
    "chunked": b"POST /v1/run HTTP/1.1\r\nConnection: close\r\n"
    + HEAD
    + CHUNKED
    + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(RUN), RUN),
    "whole URL": b"POST http://127.0.0.1:7861/v1/run HTTP/1.1\r\nConnection: close\r\n" + HEAD + LENGTH + b"\r\n" + RUN,
    "range": b"POST /v1/run HTTP/1.1\r\nConnection: close\r\nRange: bytes="
    + b"0-1," * 2000
    + b"\r\n"
    + HEAD
    + LENGTH
    + b"\r\n"
    + RUN,
    "expect": b"POST /v1/run HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\n" + HEAD + LENGTH + b"\r\n" + RUN,
}
BROKEN = {
    "TE and CL": b"POST /v1/run HTTP/1.1\r\n"
    + HEAD
    + LENGTH
    + CHUNKED
    + b"\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TE twice": b"POST /v1/run HTTP/1.1\r\n" + HEAD + CHUNKED * 2 + b"\r\n0\r\n\r\n",
    "TE unknown": b"POST /v1/run HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "CL twice": b"POST /v1/run HTTP/1.1\r\n" + HEAD + LENGTH + b"Content-Length: 1\r\n\r\n" + RUN,
    "CL negative": b"POST /v1/run HTTP/1.1\r\n" + HEAD + b"Content-Length: -5\r\n\r\n" + RUN,
    "CL too short": b"POST /v1/run HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\n" + RUN,
    "host twice": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "host missing": b"GET /livez HTTP/1.1\r\n\r\n",
    "host missing in HTTP/1.0": b"GET /health HTTP/1.0\r\n\r\n",
    "header of 64 kB": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 65_536 + b"\r\n\r\n",
    "1000 headers": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 40) for n in range(1000))
    + b"\r\n",
    "long path": b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "absolute address": b"GET http://evil.com/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "bad chunk": b"POST /v1/run HTTP/1.1\r\n" + HEAD + CHUNKED + b"\r\nzz\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "authority": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n",
    "bare LF": b"GET /health HTTP/1.1\nHost: evil.com\n\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "garbage": bytes(range(256)) * 4 + b"\r\n\r\n",
    "two requests, the first short": b"POST /v1/run HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 2\r\n\r\n{}garbage\r\n\r\n",
}


async def exchange(port: int, request: bytes) -> bytes:
    """All that comes back until the connection is closed; after the last byte our side says that it has no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        await writer.drain()
        head = await reader.read(65_536)
        if b"100 Continue" in head:
            head = head.partition(b"\r\n\r\n")[2]
        return head + await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("request_", SOUND.values(), ids=SOUND.keys())
async def test_odd_but_sound_http_is_served(request_):
    async with served(Worker(FakeEngine())) as there:
        reply = await exchange(there.port, request_)
    assert reply.split(b" ")[1] == b"200", reply[:200]
    assert '"emotion":"负面"'.encode() in reply


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_in_http_1_0_without_a_host_is_answered(method, path):
    async with served(Worker(FakeEngine())) as there:
        reply = await exchange(there.port, f"{method} {path} HTTP/1.0\r\n\r\n".encode())
    assert reply.split(b" ")[1] == b"200"


async def test_pipelined_requests_are_answered_in_order():
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: %d\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-ID: 2\r\n\r\n"
    async with served(Worker(FakeEngine())) as there:
        reply = await exchange(there.port, one % 0 + one % 1 + last)
    ids = [line.rpartition(b" ")[2] for line in reply.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"0", b"1", b"2"]


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN.keys())
async def test_broken_http_gets_a_4xx_or_a_closed_connection(request_):
    async with served(Worker(FakeEngine())) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(request_)
        if request_ in (BROKEN["TLS"], BROKEN["bad chunk"]):
            writer.write_eof()
        try:
            head = await reader.read(65_536)
        except ConnectionError:
            head = b""
        writer.close()
        assert head == b"" or head.startswith(b"HTTP/1.1 4"), head[:200]
        after = await exchange(there.port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert after.startswith(b"HTTP/1.1 200")


async def test_a_body_of_two_megabytes_hears_why_it_is_refused():
    body = json.dumps({"text": "x" * 2_000_000}).encode()
    head = b"POST /v1/run HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    async with served(Worker(FakeEngine())) as there:
        reply = await exchange(there.port, head + body)
    assert reply.startswith(b"HTTP/1.1 413")
    assert str(len(body)).encode() in reply and str(MAX_BODY_BYTES).encode() in reply
