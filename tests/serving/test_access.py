"""The security matrix: every route of worker and balancer x no key, a bad key, and one of each role."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from qwen_aio.balancer.app import create_balancer_app
from qwen_aio.balancer.balancer import Balancer
from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.keys import ROLES
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits, Rates
from qwen_aio.serving.access.rules import RULES, rule_of
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.guard import PROBE_PATHS
from tests.asking import calling, check_refusal
from tests.fakes import FakeClock, FakeEngine
from tests.keys import BAD, SECRETS, bearer, file_of_keys, status_of
from tests.served import Worker

TEXT = {"text": "差评", "mode": "sentiment"}


def worker_app(keys: KeyRing, _: Path, limits: RateLimits = NO_LIMITS) -> FastAPI:
    return Worker(FakeEngine(), keys=keys, limits=limits).app


def balancer_app(keys: KeyRing, folder: Path, limits: RateLimits = NO_LIMITS) -> FastAPI:
    gate = AdmissionGate()
    return create_balancer_app(
        Balancer(Settings(), gate, status_dir=folder, egress=EgressGuard()), gate, keys=keys, limits=limits
    )


@pytest.mark.parametrize("make", [worker_app, balancer_app])
async def test_every_route_lets_in_whom_its_rule_names_and_nobody_else(make, tmp_path):
    app = make(KeyRing(file_of_keys(tmp_path).path), tmp_path)
    num_cells = 0
    for route in app.routes:
        assert isinstance(route, Route)
        assert route.path in RULES, f"{route.path} has no rule in access.py"
        path = re.sub(r"{[^}]*}", "x", route.path)
        for method in ("GET", "DELETE") if path == "/login" else ("GET", "POST", "DELETE"):  # POST takes its own key
            for role, headers in [(None, {}), (None, bearer(BAD)), *((role, bearer(SECRETS[role])) for role in ROLES)]:
                status, sent = await status_of(app, method, path, headers)
                assert expected(path, role) == (status if status in (401, 403) else "in"), (method, path, headers)
                assert ("www-authenticate" in sent) == (status == 401)
                num_cells += 1
    assert num_cells > 200


@pytest.mark.parametrize("make", [worker_app, balancer_app])
async def test_no_route_answers_to_a_foreign_name_or_a_foreign_page(make, tmp_path):
    """Whatever key comes along, and before it is looked at: a reply would tell a foreign page about keys."""
    app = make(KeyRing(file_of_keys(tmp_path).path), tmp_path)
    for path in paths_of(app):
        for headers in ({}, bearer(SECRETS["admin"])):
            for method in ("GET", "POST", "OPTIONS"):
                is_probe = path in PROBE_PATHS and method != "POST"
                for host in ("evil.example", "localhost.evil.example", "[::2]", ""):
                    status, _ = await status_of(app, method, path, headers | {"host": host})
                    assert (status == 400) != is_probe, (method, path, host, status)
            for origin in ("https://evil.example", "null"):
                status, _ = await status_of(app, "POST", path, headers | {"origin": origin})
                assert status == 403, (path, origin)
            asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
            for method in ("OPTIONS", "GET"):
                _, sent = await status_of(app, method, path, headers | asked)
                assert not [name for name in sent if name.startswith("access-control")], (method, path)


@pytest.mark.parametrize("make", [worker_app, balancer_app])
async def test_a_limit_is_the_keys_on_every_server_whatever_address_is_claimed(make, tmp_path):
    limits = RateLimits(Rates(requests=2), clock=FakeClock())
    app = make(KeyRing(file_of_keys(tmp_path).path), tmp_path, limits)

    async def is_limited(role: str, **more: str) -> bool:
        return (await status_of(app, "POST", "/v1/run", bearer(SECRETS[role]) | more))[0] == 429

    assert [await is_limited("user", **{"x-forwarded-for": f"10.0.0.{each}"}) for each in range(3)] == [
        *(False, False),
        True,
    ]
    assert not await is_limited("admin")
    assert not any([await is_limited("service") for _ in range(5)])


def paths_of(app: FastAPI) -> list[str]:
    """One path for every route."""
    return [re.sub(r"{[^}]*}", "x", route.path) for route in app.routes if isinstance(route, Route)]


def expected(path: str, role: str | None) -> int | str:
    needed = rule_of(path)
    if needed is None:
        return "in"
    if role is None:
        return 401
    return "in" if ROLES.index(role) >= ROLES.index(needed) else 403


def test_only_these_need_no_key_and_these_more_than_a_users():
    by_role = {role: {path for path, needed in RULES.items() if needed == role} for role in (None, "admin", "service")}
    assert by_role[None] == {"/livez", "/readyz", "/login", "/logout"}
    assert by_role["admin"] == {"/admin/workers/{id}"} and by_role["service"] == {"/internal/call", "/internal/tokens"}
    assert rule_of("/whatever/there/is") == "user"


@pytest.mark.parametrize("path", ["/internal/call", "/internal/call\n", "/admin/workers/x", "/admin/workers/x\n"])
@pytest.mark.parametrize("make", [worker_app, balancer_app])
async def test_no_other_spelling_of_a_path_needs_less(make, path, tmp_path):
    app = make(KeyRing(file_of_keys(tmp_path).path), tmp_path)
    assert (await status_of(app, "POST", path, bearer(SECRETS["user"])))[0] == 403


@pytest.mark.parametrize("path", ["//internal/call", "/internal/call/", "/INTERNAL/CALL", "/x/../internal/call"])
async def test_what_is_no_spelling_of_a_path_leads_nowhere(path, tmp_path):
    app = worker_app(KeyRing(file_of_keys(tmp_path).path), tmp_path)
    assert (await status_of(app, "POST", path, bearer(SECRETS["user"])))[0] == 404


@pytest.mark.parametrize(
    "stated",
    [
        *("", "Bearer", "Bearer ", f"Basic {SECRETS['user']}", SECRETS["user"], f"Bearer {SECRETS['user']}x"),
        *(f"Bearer {SECRETS['user'][:-1]}", "Bearer " + "x" * 10_000, "Bearer ä"),
    ],
)
async def test_anything_but_a_key_is_401_in_the_usual_shape(stated, tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        response = await client.get("/v1/tasks", headers=[(b"authorization", stated.encode("latin-1"))])
        check_refusal(response, 401, "invalid_api_key")
        assert response.headers["www-authenticate"] == 'Bearer realm="qwen_aio"'
        assert SECRETS["user"] not in response.text


async def test_two_keys_are_none(tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        twice = [("authorization", f"Bearer {SECRETS['user']}")] * 2
        assert (await client.get("/v1/tasks", headers=twice)).status_code == 401


async def test_without_a_file_of_keys_a_key_that_is_sent_anyway_is_ignored(tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(tmp_path / "keys.json"))) as client:
        assert (await client.get("/v1/tasks", headers=bearer(BAD))).status_code == 200
        foreign = {"origin": "http://evil.example"}
        assert (await client.post("/v1/run", json=TEXT, headers=foreign)).status_code == 403


async def test_keys_that_come_and_go_count_from_the_next_request_on(tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(tmp_path / "keys.json"))) as client:
        assert (await client.post("/v1/run", json=TEXT)).status_code == 200
        file = file_of_keys(tmp_path)
        assert (await client.post("/v1/run", json=TEXT)).status_code == 401
        assert (await client.post("/v1/run", json=TEXT, headers=bearer(SECRETS["user"]))).status_code == 200
        file.revoke("user-1")
        assert (await client.post("/v1/run", json=TEXT, headers=bearer(SECRETS["user"]))).status_code == 401


async def test_a_body_is_not_read_for_a_request_without_a_key(tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        check_refusal(await client.post("/v1/run", content=b"x" * 3_000_000), 401, "invalid_api_key")


async def test_no_key_is_logged_counted_or_shown(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = {*SECRETS.values(), BAD}
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        replies = []
        for secret in secrets:
            replies.append(await client.post("/v1/run", json=TEXT, headers=bearer(secret)))
            replies.append(await client.post("/internal/call", json={}, headers=bearer(secret)))
            replies.append(await client.post("/login", data={"key": secret}))
        replies.append(await client.get("/metrics", headers=bearer(SECRETS["user"])))
        replies.append(await client.get("/health", headers=bearer(SECRETS["user"])))
    said = caplog.text + "".join(reply.text + str(reply.headers) for reply in replies)
    assert not [secret for secret in secrets if secret in said]
    assert not [secret for secret in secrets if secret in (tmp_path / "keys.json").read_text()]
