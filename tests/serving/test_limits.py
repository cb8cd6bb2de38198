"""Limits of one client: buckets that may go into debt, whoever comes meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.errors import RateLimited
from qwen_aio.serving.access import limits as module
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import RateLimits, Rates, address_name
from tests.asking import calling, check_refusal
from tests.fakes import FakeClock, FakeEngine
from tests.keys import SECRETS, bearer, file_of_keys
from tests.served import Worker

RUN, CHAT = "/v1/run", "/v1/chat/completions"
DECISION = {"text": "失望", "mode": "sentiment"}
HI = {"messages": [{"role": "user", "content": "hi"}]}


def is_admitted(limits: RateLimits, client: str = "a") -> bool:
    try:
        limits.admit(client)
    except RateLimited as exc:
        assert exc.retry_after_s and exc.retry_after_s >= 1
        return False
    return True


# ---- buckets ----


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 300)), max_size=40),
)
def test_a_bucket_keeps_its_books(size, steps):
    """Against exact arithmetic: seconds that pass, then what a request takes."""
    clock = FakeClock()
    limits = RateLimits(Rates(tokens=size), clock=clock)
    level = Fraction(size)
    for seconds, tokens in steps:
        clock.now += seconds
        level = min(Fraction(size), level + Fraction(seconds * size, 60))
        if abs(level - 1) < Fraction(1, 10**6):
            return  # float and fraction may differ about it
        assert is_admitted(limits) == (level >= 1)
        if level >= 1:
            limits.charge("a", tokens)
            level -= tokens


@given(st.integers(1, 50), st.integers(1, 40))
def test_whoever_waits_as_long_as_told_is_admitted_and_no_sooner(size, debt):
    clock = FakeClock()
    limits = RateLimits(Rates(tokens=size), clock=clock)
    limits.charge("a", size + debt)
    with pytest.raises(RateLimited) as refused:
        limits.admit("a")
    clock.now += refused.value.retry_after_s - 1.001
    assert not is_admitted(limits)
    clock.now += 1.001
    assert is_admitted(limits)


def test_requests_and_tokens_count_apart_and_every_client_for_itself():
    limits = RateLimits(Rates(requests=2, tokens=100), clock=FakeClock())
    assert [is_admitted(limits) for _ in range(3)] == [True, True, False]
    assert is_admitted(limits, "b")
    limits.charge("b", 1000)
    assert not is_admitted(limits, "b")
    assert limits.headers("b") == {
        "X-RateLimit-Limit-Requests": "2",
        "X-RateLimit-Remaining-Requests": "1",
        "X-RateLimit-Reset-Requests": "30s",
        "X-RateLimit-Limit-Tokens": "100",
        "X-RateLimit-Remaining-Tokens": "0",
        "X-RateLimit-Reset-Tokens": "600s",
    }


def test_memory_is_bounded_and_a_debt_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(module, "MAX_CLIENTS", 10)
    clock = FakeClock()
    limits = RateLimits(Rates(tokens=60), clock=clock)
    limits.charge("debtor", 600)
    for number in range(1000):
        limits.admit(f"passer-by {number}")
    assert len(limits._buckets) <= 10
    assert not is_admitted(limits, "debtor")
    for number in range(20):  # all of them owe: those beyond the bound owe together
        limits.charge(f"late {number}", 120)
    assert not is_admitted(limits, "another")
    clock.now += 3600
    assert is_admitted(limits, "another")


def test_an_address_stands_for_its_site():
    assert address_name("10.0.0.1") == "10.0.0.1" == address_name("::ffff:10.0.0.1")
    assert address_name("2001:db8::1") == address_name("2001:db8::ffff:1") != address_name("2001:db8:0:1::1")
    assert address_name("unknown") == "unknown"


# ---- over HTTP ----


def limited(tmp_path=None, *, engine: FakeEngine | None = None, **rates: int) -> Worker:
    keys = {} if tmp_path is None else {"keys": KeyRing(file_of_keys(tmp_path).path)}
    return Worker(engine or FakeEngine(), limits=RateLimits(Rates(**rates), clock=FakeClock()), **keys)


@pytest.mark.parametrize(("path", "body"), [(RUN, DECISION), (CHAT, HI), ("/tokenize", HI), (RUN, {"text": 1})])
async def test_a_request_too_many_is_429_and_reaches_no_engine(path, body):
    worker = limited(requests=1)
    async with calling(worker) as client:
        first = await client.post(path, json=body)
        asked = len(worker.engine.prompts)
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        refused = await client.post(path, json=body)
        error = check_refusal(refused, 429, "rate_limit_exceeded")
        assert (error["type"], refused.headers["retry-after"]) == ("rate_limit_error", "60")
        assert refused.headers["x-ratelimit-limit-requests"] == "1"
        for other in ("/health", "/v1/tasks", "/v1/models", "/metrics", "/livez"):
            assert (await client.get(other)).status_code == 200
    assert len(worker.engine.prompts) == asked


def left(response: httpx.Response) -> int:
    return int(response.headers["x-ratelimit-remaining-tokens"])


ASKING: dict[str, tuple[str, dict, Callable[[str], int]]] = {
    "decision": (RUN, DECISION, lambda _: 95),
    "both": (RUN, DECISION | {"reply": True}, lambda _: 95 + 60 + 2),
    "stream": (RUN, DECISION | {"reply": True, "stream": True}, lambda _: 95 + 60 + 2),
    "texts": (RUN, {"texts": ["失望", "失望"], "mode": "sentiment"}, lambda _: 2 * 95),
    "tasks": (RUN, {"text": "失望", "tasks": ["sentiment", "safety"]}, lambda _: 2 * 95),
    "chat": (CHAT, HI, lambda body: json.loads(body)["usage"]["total_tokens"]),
    "chat stream": (CHAT, HI | {"stream": True}, lambda _: 60 + 2),
    "refused": (RUN, {"text": 1}, lambda _: 0),
}


@pytest.mark.parametrize("case", ASKING)
async def test_what_a_request_took_is_charged_when_it_is_over(case):
    path, body, cost = ASKING[case]
    async with calling(limited(tokens=10_000)) as client:
        first = await client.post(path, json=body)
        assert left(first) == 10_000
        assert left(await client.post("/tokenize", json=HI)) == 10_000 - cost(first.text)


async def test_a_key_counts_wherever_it_comes_from_and_a_service_not_at_all(tmp_path):
    async with calling(limited(tmp_path, requests=2)) as client:

        async def status(role: str, **headers: str) -> int:
            return (await client.post(RUN, json=DECISION, headers=bearer(SECRETS[role]) | headers)).status_code

        assert [await status("user", **{"x-forwarded-for": f"10.0.0.{number}"}) for number in range(3)] == [
            200,
            200,
            429,
        ]
        assert await status("admin") == 200
        assert [await status("service") for _ in range(5)] == [200] * 5


async def test_without_limits_there_are_no_headers():
    async with calling(Worker(FakeEngine())) as client:
        reply = await client.post(RUN, json=DECISION)
        assert not [name for name in reply.headers if name.startswith("x-ratelimit")]
