"""Signing in with a browser: the form, the cookie, and how a session ends."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.keys import Key, hash_of
from qwen_aio.serving.access.sessions import SESSION_S, Sessions
from tests.asking import calling, check_refusal
from tests.fakes import FakeClock, FakeEngine
from tests.keys import BAD, SECRETS, bearer, file_of_keys
from tests.served import Worker

PERSON = {"accept": "text/html,*/*;q=0.8"}
KEY = Key(name="a", role="user", sha256=hash_of("a"), created="")


@asynccontextmanager
async def browsing(tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        yield client


@pytest.mark.parametrize(
    ("language", "words"), [("en", "needs a key"), ("zh-CN,en", "需要密钥"), ("fr", "needs a key")]
)
async def test_a_person_without_a_key_gets_the_form_in_the_browsers_language(tmp_path, language, words):
    async with browsing(tmp_path) as client:
        reply = await client.get("/health", headers=PERSON | {"accept-language": language})
    assert reply.status_code == 401 and words in reply.text and 'action="login"' in reply.text
    assert "form-action 'self'" in reply.headers["content-security-policy"]
    # With no-referrer, browsers send forms with the origin "null".
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-store" and "www-authenticate" in reply.headers


async def test_programs_and_deeper_paths_get_json(tmp_path):
    async with browsing(tmp_path) as client:
        for path, headers in (("/health", {}), ("/v1/tasks", PERSON)):
            assert (await client.get(path, headers=headers)).json()["error"]["code"] == "invalid_api_key"


async def test_a_key_in_the_form_begins_a_session_and_signing_out_ends_it(tmp_path):
    async with browsing(tmp_path) as client:
        reply = await client.post(
            "/login", data={"key": f" {SECRETS['user']} "}, headers={"origin": "http://localhost"}
        )
        assert (reply.status_code, reply.headers["location"]) == (303, "./")
        cookie = reply.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
        assert (await client.get("/health")).status_code == 200
        assert "user-1" in (await client.get("/login", headers=PERSON)).text
        kept = dict(client.cookies)
        reply = await client.post("/logout", headers={"origin": "http://localhost"})
        assert (reply.status_code, reply.headers["location"]) == (303, "login") and not client.cookies
        client.cookies.update(kept)
        assert (await client.get("/health")).status_code == 401


async def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(tmp_path):
    async with browsing(tmp_path) as client:
        reply = await client.post("/login", data={"key": SECRETS["user"]}, headers={"origin": "https://localhost"})
        assert "secure" in reply.headers["set-cookie"].lower()


@pytest.mark.parametrize("form", [{"key": BAD}, {"key": ""}, {}, {"key": "x" * 1000}, {"other": SECRETS["user"]}])
async def test_a_wrong_key_in_the_form_begins_nothing(tmp_path, form):
    async with browsing(tmp_path) as client:
        reply = await client.post("/login", data=form)
        assert reply.status_code == 401 and "set-cookie" not in reply.headers
        assert 'role="alert"' in reply.text and BAD not in reply.text


async def test_odd_forms_are_refused(tmp_path):
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with browsing(tmp_path) as client:
        for body, status in ((b"key=a&key=b", 400), (b"\xff\xfe", 400), (b"key=%ff%fe", 401)):
            assert (await client.post("/login", content=body, headers=form)).status_code == status
        assert (await client.post("/login", content=b"x", headers={"content-type": "text/plain"})).status_code == 415
        assert (await client.post("/login", data={"key": "x" * 5000})).status_code == 413
        foreign = {"origin": "http://evil.example"}
        assert (await client.post("/login", data={"key": SECRETS["user"]}, headers=foreign)).status_code == 403
        assert (await client.post("/v1/run", data={"key": "x"}, headers=bearer(SECRETS["user"]))).status_code == 415


async def test_a_session_ends_with_its_key(tmp_path):
    async with browsing(tmp_path) as client:
        await client.post("/login", data={"key": SECRETS["user"]})
        file_of_keys_path = tmp_path / "keys.json"
        assert (await client.get("/health")).status_code == 200
        file_of_keys_path.write_text('{"version": 1, "keys": []}')
        assert (await client.get("/health")).status_code == 401


async def test_a_stated_key_counts_and_not_the_session(tmp_path):
    async with browsing(tmp_path) as client:
        await client.post("/login", data={"key": SECRETS["user"]})
        assert (await client.get("/health", headers=bearer(BAD))).status_code == 401


def test_a_token_holds_for_one_server_one_key_and_half_a_day():
    clock = FakeClock()
    sessions, other = Sessions(clock=clock), Sessions(clock=clock)
    token = sessions.begin(KEY)
    assert sessions.key_of(token, [KEY]) is KEY
    assert other.key_of(token, [KEY]) is None and sessions.cookie != other.cookie
    assert sessions.key_of(token, [KEY.model_copy(update={"sha256": hash_of("b")})]) is None
    later = f"{int(token.partition('.')[0]) + 1}.{token.partition('.')[2]}"
    for odd in ("", ".", later, token + "0", "9" * 13 + token[10:], token.replace(".", "..")):
        assert sessions.key_of(odd, [KEY]) is None
    clock.advance(SESSION_S)
    assert sessions.key_of(token, [KEY]) is None


def test_those_signed_out_are_forgotten_once_they_would_have_ended():
    clock = FakeClock()
    sessions = Sessions(clock=clock)
    for _ in range(3):
        sessions.end(sessions.begin(KEY))
        clock.advance(SESSION_S + 1)
    assert len(sessions._signed_out) == 1


@pytest.mark.parametrize(("language", "words"), [("en", "does not answer to the name"), ("zh-CN,en", "服务器不接受")])
@pytest.mark.parametrize("path", ["/", "/v1/tasks"])
async def test_a_person_who_uses_another_name_reads_which_flag_is_missing(path, language, words):
    async with calling(Worker(FakeEngine())) as client:
        headers = {"Host": "evil.com", "Accept": "text/html,*/*;q=0.8", "Accept-Language": language}
        page = await client.get(path, headers=headers)
        assert (page.status_code, "--allowed-hosts" in page.text, words in page.text) == (400, True, True)
        assert "evil" not in page.text and page.headers["content-security-policy"].startswith("default-src 'none'")
        check_refusal(await client.get(path, headers={"Host": "evil.com"}), 400, "host_refused")
