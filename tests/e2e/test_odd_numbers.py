"""Odd numbers and odd answers, on two real workers with the bundled model and a balancer before them.

Every request is answered or refused, and whoever is served beside it gets what they would have got alone; what is
streamed is what the reply says in the end, also where a second worker goes on with it.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_aio.bounds import BOUNDS
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.models.find import BUNDLED
from qwen_aio.wire.engine import ENGINE_PATH
from tests.asking import sse
from tests.campaign import in_campaign
from tests.e2e.processes import App, start

RUN = "/v1/run"
NEIGHBOUR = {"text": "讲个故事", "mode": "chat", "temperature": 0, "max_tokens": 48, "stream": True}
HOT = {"mode": "chat", "temperature": 5, "top_p": 1, "top_k": 0, "repetition_penalty": 1, "max_tokens": 24}

ODD: list[dict[str, Any]] = [
    {"top_p": 1e-46},  # 0 in float32
    {"top_p": 5e-324, "temperature": 5, "top_k": 0},
    {"top_p": 0},
    {"temperature": 5e-324},
    {"temperature": 1e-38, "top_p": 1e-46, "top_k": 1, "repetition_penalty": 0.01},
    {"temperature": 5, "top_p": 1, "top_k": 10**6, "repetition_penalty": 5},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"temperature": 10**400},
    {"top_k": 10**18},
    {"top_k": -1},
    {"repetition_penalty": 0.005},
    {"repetition_penalty": 5e-324},
    {"seed": 2**63 - 1},
    {"seed": 2**63},
    {"seed": -1},
    {"max_tokens": 1},
    {"max_tokens": 2**63},
    {"stop": ["\0", "�", " ", "\n", "<|im_end|>"]},
    {"stop": ["a" * 64] * 8},
    {"stop": [""]},
]
NUMBERS = st.floats() | st.integers() | st.sampled_from([0, 5e-324, 1e-46, 1e-38, 0.01, 1, 5, 1e308, 2**63 - 1])
BODIES = st.dictionaries(st.sampled_from(sorted(BOUNDS)), NUMBERS, min_size=1, max_size=3)


@dataclass
class Both:
    """Two workers and the balancer before them."""

    workers: tuple[App, App]
    balancer: App

    def assert_well(self) -> None:
        """The same processes as in the beginning, both given work, and nothing left of any request."""
        assert all(app.process.poll() is None for app in (*self.workers, self.balancer))
        rows = self.balancer.get("/status")[1]["workers"]
        assert [(row["health"], row["breaker"], row["generation"]) for row in rows] == [("up", "closed", 1)] * 2


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    home = tmp_path_factory.mktemp("odd")
    apps: list[App] = []
    try:
        apps.append(_start_worker(home, "qwen-1"))
        apps.append(_start_worker(home, "qwen-2"))
        apps.append(start(home, "--workers", "qwen-1,qwen-2", program="balancer.py"))
        apps[2].wait_until("both ready", lambda: apps[2].get("/status")[1]["ready"] == 2)
        yield Both((apps[0], apps[1]), apps[2])
    finally:
        for app in apps:
            app.process.kill()
            app.process.wait()


def _start_worker(home: Path, worker_id: str) -> App:
    return start(home, "--mode", "worker", "--id", worker_id, "--threads", "1", "--precision", "fp32")


def told(app: App, body: dict[str, Any]) -> tuple[str, str]:
    """The joined tokens of a stream of `app`, and the text of its reply."""
    status, content = app.post(RUN, body | {"stream": True})
    assert status == 200
    *tokens, (last, done) = sse(content)
    assert {name for name, _ in tokens} <= {"token"}
    assert last == "done"
    return "".join(data["text"] for _, data in tokens), done["reply"]["text"]


def in_company(app: App, bodies: list[dict[str, Any]]) -> None:
    """Ask for all of `bodies` beside a stream that is not disturbed by them."""
    alone = told(app, NEIGHBOUR)
    with ThreadPoolExecutor(8) as callers:
        neighbour = callers.submit(told, app, NEIGHBOUR)
        replies = list(callers.map(lambda body: app.post(RUN, {"text": "你好", "mode": "chat"} | body), bodies))
        assert neighbour.result() == alone
    for body, (status, reply) in zip(bodies, replies, strict=True):
        assert status in (200, 400), (body, reply)
        if status == 400:
            assert reply["error"]["code"] == "invalid_request"
            assert (reply["error"]["param"] or "").split(".")[0] in {"", *body}
        else:
            fixed = reply["reply"]["finish_reason"] == "fixed"  # two draws that were no sentence
            assert fixed or reply["reply"]["usage"]["completion_tokens"] >= 1


def test_no_odd_number_ends_a_worker_or_disturbs_who_is_served_beside_it(both: Both) -> None:
    for app in (both.workers[0], both.balancer):
        in_company(app, ODD)
        for body in ODD:  # each of them alone, too
            assert app.post(RUN, {"text": "你好", "mode": "chat"} | body)[0] in (200, 400)
    both.assert_well()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(BODIES, min_size=1, max_size=6))
def test_any_numbers_are_answered_or_refused(both: Both, bodies: list[dict[str, Any]]) -> None:
    in_company(both.balancer, [{"max_tokens": 8} | body for body in bodies])
    both.assert_well()


def test_a_number_out_of_bounds_is_refused_before_anything_is_computed(both: Both) -> None:
    completed = both.workers[0].get("/health")[1]["completed"]
    body = {"text": "快递太慢了,差评!", "reply": True, "repetition_penalty": 0.005}
    status, reply = both.workers[0].post(RUN, body)
    assert (status, reply["error"]["param"]) == (400, "repetition_penalty")
    assert "0.01 to 5, not 0.005" in reply["error"]["message"]
    assert both.workers[0].get("/health")[1]["completed"] == completed


# ---- what is streamed is what the reply says ----


@pytest.mark.parametrize("text", ["death", *in_campaign("你好", "Tell me a story")])
def test_the_joined_tokens_are_the_text_of_the_reply(both: Both, text: str) -> None:
    for seed in range(8):
        for app in (both.workers[0], both.balancer):
            joined, reply = told(app, HOT | {"text": text, "seed": seed})
            assert joined == reply == reply.strip()


def text_of(tokenizer: Tokenizer, pieces: list[list[int]]) -> str:
    """Without the beginning of a character that the tokens do not end."""
    raw = b"".join(tokenizer.token_bytes(token) for ids in pieces for token in ids)
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw).strip()


def test_the_pieces_of_a_call_are_its_answer_wherever_a_second_worker_goes_on(both: Both) -> None:
    """Which tokens follow is another question: at this temperature the second worker may draw others."""
    tokenizer = Tokenizer.load(BUNDLED)
    first, second = both.workers
    sampling = {name: value for name, value in HOT.items() if name != "mode"}
    num_sampled = 0
    for seed in range(6):
        call = {"task": "chat", "text": "42", "seed": seed, **sampling}  # of no language that an answer could miss
        *pieces, (_, answer) = sse(first.post(ENGINE_PATH, call)[1])
        if answer["finish_reason"] == "fixed":  # neither first sentence fitted
            continue
        num_sampled += 1
        (name, _), *pieces = pieces
        assert name == "start"
        assert "".join(piece["text"] for _, piece in pieces) == answer["text"]
        for cut in range(1, len(pieces), 5):
            sent = [token for _, piece in pieces[:cut] for token in piece["token_ids"]]
            _, *rest, (_, end) = sse(second.post(ENGINE_PATH, call | {"resume": {"token_ids": sent}})[1])
            assert "".join(piece["text"] for _, piece in rest) == end["text"]
            told = "".join(piece["text"] for _, piece in pieces[:cut]) + end["text"]
            *before, last = [sent, *(piece["token_ids"] for _, piece in rest)]
            assert text_of(tokenizer, [*before, last]).startswith(told)
            assert told.startswith(text_of(tokenizer, before))  # only the last may be cut, where a sentence ends
    assert num_sampled >= 3
