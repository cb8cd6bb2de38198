"""What a proxy says counts from those that are listed, and changes nothing from anybody else."""

from __future__ import annotations

import ipaddress

import pytest
from starlette.datastructures import Headers

from qwen_aio.serving.guard import Guard
from qwen_aio.serving.transport.proxied import Proxied, ProxySettings

HERE, ELSEWHERE = "10.0.0.7", "192.0.2.1"
LISTED = ProxySettings(trusted=(ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("fd00::/8")))
BELOW = ProxySettings("/qwen")


class App:
    """Remembers what reached it."""

    def __init__(self) -> None:
        self.path = ""
        self.raw_path = b""
        self.hosts: list[str] = []
        self.client: str | None = None

    async def __call__(self, scope, receive, send) -> None:
        self.path, self.raw_path, self.hosts = scope["path"], scope["raw_path"], Headers(scope=scope).getlist("host")
        self.client = scope["client"] and scope["client"][0]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def asked(
    proxy: ProxySettings,
    path: str = "/",
    *,
    peer: str | None = HERE,
    method: str = "GET",
    guarded: bool = False,
    **headers,
) -> tuple[int, App, Headers]:
    """The status, what the application saw, and the reply's headers."""
    app = App()
    sent: list[dict] = []
    pairs = [("host", "127.0.0.1:7860"), *((name.replace("_", "-"), value) for name, value in headers.items())]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": peer and (peer, 1),
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    async def send(message: dict) -> None:
        sent.append(message)

    inner = Guard(app, allowed_hosts=("qwen.example",)) if guarded else app
    await Proxied(inner, proxy=proxy)(scope, receive, send)
    return sent[0]["status"], app, Headers(raw=sent[0]["headers"])


# ---- X-Forwarded-Host ----


@pytest.mark.parametrize("peer", [HERE, "fd12::1", "::ffff:10.0.0.9"])
async def test_a_listed_proxy_says_which_host_was_asked_for(peer):
    _, app, _ = await asked(LISTED, peer=peer, x_forwarded_host="qwen.example:8443")
    assert app.hosts == ["qwen.example:8443"]


@pytest.mark.parametrize(
    ("proxy", "peer"),
    [(LISTED, ELSEWHERE), (LISTED, None), (LISTED, "::1"), (ProxySettings(), "127.0.0.1"), (BELOW, HERE)],
)
async def test_anybody_else_says_nothing(proxy, peer):
    headers = {"x_forwarded_host": "qwen.example", "x_forwarded_prefix": "/a", "x_forwarded_proto": "https"}
    _, app, _ = await asked(proxy, "/a/b", peer=peer, x_forwarded_for=HERE, forwarded="for=10.0.0.7", **headers)
    assert (app.hosts, app.path) == (["127.0.0.1:7860"], "/a/b")


@pytest.mark.parametrize(
    "said", ["evil.example", "qwen.example, evil.example", "evil.example, qwen.example", "", "a b"]
)
async def test_the_guard_judges_the_name_of_a_listed_proxy_too(said):
    status, app, _ = await asked(LISTED, guarded=True, x_forwarded_host=said)
    assert (status, app.path) == (400, "")


@pytest.mark.parametrize(
    ("peer", "origin", "status"),
    [
        (HERE, "https://qwen.example", 200),
        (HERE, "http://qwen.example", 200),
        (HERE, "https://evil.example", 403),
        (HERE, "http://127.0.0.1:7860", 403),
        (ELSEWHERE, "https://qwen.example", 403),
        (ELSEWHERE, "http://127.0.0.1:7860", 200),
    ],
)
async def test_the_origin_is_compared_with_the_name_that_counts(peer, origin, status):
    given = await asked(LISTED, method="POST", peer=peer, guarded=True, x_forwarded_host="qwen.example", origin=origin)
    assert given[0] == status


# ---- the client's address ----


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5", "203.0.113.5"),  # the client has written the first one itself
        ("203.0.113.5, 10.0.0.9", "203.0.113.5"),  # two proxies in a row
        ("10.0.0.8, 10.0.0.9", HERE),
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "unknown"),
        ("x" * 500, "x" * 64),
    ],
)
async def test_a_listed_proxy_says_whose_request_it_is(said, client):
    _, app, _ = await asked(LISTED, x_forwarded_for=said)
    assert app.client == client
    _, app, _ = await asked(LISTED, peer=ELSEWHERE, x_forwarded_for=said)
    assert app.client == ELSEWHERE


# ---- the path ----


@pytest.mark.parametrize(
    ("asked_for", "seen"),
    [
        ("/qwen/", "/"),
        ("/qwen/v1/run", "/v1/run"),
        ("/v1/run", "/v1/run"),  # a proxy that has cut it off, or a probe on the server's own port
        ("/", "/"),
        ("/qwenish/x", "/qwenish/x"),
        ("/qwen/qwen/x", "/qwen/x"),
        ("/qwen//evil.example", "//evil.example"),
    ],
)
async def test_the_root_path_is_cut_off_if_it_is_there(asked_for, seen):
    _, app, _ = await asked(BELOW, asked_for)
    assert (app.path, app.raw_path) == (seen, seen.encode())


async def test_without_the_last_slash_a_browser_is_sent_to_it():
    status, app, headers = await asked(BELOW, "/qwen")
    assert (status, headers["location"], app.path) == (308, "/qwen/", "")


@pytest.mark.parametrize("prefix", ["/chat", "/chat/", "/a/b-c"])
async def test_a_listed_proxy_may_say_the_root_path(prefix):
    _, app, _ = await asked(LISTED, prefix.rstrip("/") + "/config", x_forwarded_prefix=prefix)
    assert app.path == "/config"


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "https://evil.example", "/a b", "/..", "/../a", "a", "/a//b", "/a\r\n"]
)
async def test_what_is_no_path_is_no_root_path(prefix):
    path = prefix.rstrip("/") if prefix.startswith("/") else "/a"
    _, app, headers = await asked(LISTED, path, x_forwarded_prefix=prefix)
    assert app.path == path and "location" not in headers
