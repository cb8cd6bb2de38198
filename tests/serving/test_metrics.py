"""What is counted of finished requests, and what /metrics shows of it."""

import asyncio
import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from qwen_aio.errors import EngineStopped
from qwen_aio.result import Answer, Decision, Timings, Usage
from qwen_aio.serving.metrics import METRICS_PATH, EgressMetrics, RequestMetrics
from qwen_aio.wire.engine import ENGINE_PATH
from tests.asking import calling
from tests.fakes import CountingGuard, FakeEngine
from tests.served import TASKS, Worker

DECIDES = {"task": "sentiment", "kind": "decision"}
ANSWERS = {"task": "chat", "kind": "generation"}
TIMES = Timings(queue_ms=100, prefill_ms=50, decode_ms=300, total_ms=450)


class Counted:
    """RequestMetrics, and what they say."""

    def __init__(self) -> None:
        self.metrics = RequestMetrics(running=lambda: 3, waiting=lambda: 2)

    def answer(self, *, tokens: int, is_resumed: bool = False) -> None:
        answer = Answer("chat", "", "stop", Usage(60, 40, tokens), TIMES)
        self.metrics.observe(TASKS["chat"], answer, is_resumed=is_resumed)

    def decision(self, label: str) -> None:
        fixed = ("negative", 1.0, {}, False, 1.0, "", "")
        decision = Decision("sentiment", label, "", "", "高", *fixed, Usage(95, 71), TIMES)
        self.metrics.observe(TASKS["sentiment"], decision, is_resumed=False)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"qwen_aio_{name}", labels)


def test_times_are_seconds_by_task():
    counted = Counted()
    counted.answer(tokens=4)
    assert counted("request_queue_time_seconds_sum", **ANSWERS) == pytest.approx(0.1)
    assert counted("time_to_first_token_seconds_sum", **ANSWERS) == pytest.approx(0.15)
    assert counted("inter_token_latency_seconds_sum", **ANSWERS) == pytest.approx(0.1)  # three gaps between four
    assert counted("request_duration_seconds_sum", **ANSWERS) == pytest.approx(0.45)
    assert counted("request_duration_seconds_count", **DECIDES) is None


def test_half_a_second_is_a_bound_of_a_bucket_since_the_alert_asks_for_it():
    counted = Counted()
    counted.decision("negative")
    assert counted("request_duration_seconds_bucket", le="0.5", **DECIDES) == 1
    assert counted("request_duration_seconds_bucket", le="0.25", **DECIDES) == 0


def test_tokens_are_counted_and_those_not_computed_again_besides():
    counted = Counted()
    counted.answer(tokens=4)
    names = ("prompt_tokens", "prefix_cache_hit_tokens", "generation_tokens")
    assert [counted(f"{name}_total", **ANSWERS) for name in names] == [60, 40, 4]


@pytest.mark.parametrize(("tokens", "first", "gaps"), [(0, None, None), (1, 1, None), (2, 1, 1)])
def test_an_answer_has_a_first_token_and_gaps_only_where_it_has_tokens(tokens, first, gaps):
    counted = Counted()
    counted.answer(tokens=tokens)
    assert counted("time_to_first_token_seconds_count", **ANSWERS) == first
    assert counted("inter_token_latency_seconds_count", **ANSWERS) == gaps


def test_of_a_resumed_answer_only_the_times_of_the_whole_count():
    counted = Counted()
    counted.answer(tokens=4, is_resumed=True)
    assert counted("request_duration_seconds_count", **ANSWERS) == 1
    assert counted("time_to_first_token_seconds_count", **ANSWERS) is None
    assert counted("generation_tokens_total", **ANSWERS) is None


def test_a_label_that_the_task_does_not_have_is_other():
    counted = Counted()
    for label in ("negative", "neutral", "made up", "by a worker"):
        counted.decision(label)
    counts = {
        label: counted("decisions_total", task="sentiment", label=label, confidence="高")
        for label in ("negative", "neutral", "other", "made up")
    }
    assert counts == {"negative": 1, "neutral": 1, "other": 2, "made up": None}


async def test_a_worker_shows_its_metrics_in_the_text_format_of_prometheus():
    worker = Worker(FakeEngine(probabilities={"负面": 0.99}))
    async with calling(worker) as client:
        await client.post("/v1/run", json={"text": "差评", "mode": "sentiment"})
        await client.post(ENGINE_PATH, json={"task": "chat", "text": "hi", "resume": {"token_ids": [0]}})
        response = await client.get(METRICS_PATH)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    shown = {
        sample.name: sample for family in text_string_to_metric_families(response.text) for sample in family.samples
    }
    assert shown["qwen_aio_decisions_total"].labels == {"task": "sentiment", "label": "negative", "confidence": "高"}
    assert shown["qwen_aio_requests_waiting"].value == 0
    assert not {name for name in shown if not name.startswith("qwen_aio_")}
    assert 'generation_tokens_total{kind="generation"' not in response.text  # another worker began that answer


async def test_nothing_that_a_request_says_becomes_a_label():
    worker = Worker(FakeEngine())
    async with calling(worker) as client:
        for mode in ("INVENTED", 'INVENTED"} 1\n'):
            await client.post("/v1/run", json={"text": "INVENTED", "mode": mode}, headers={"X-Request-ID": "INVENTED"})
            await client.post(ENGINE_PATH, json={"task": mode, "text": "INVENTED"})
        await client.post("/v1/run", json={"text": "INVENTED", "mode": "chat"}, headers={"X-Request-ID": "INVENTED"})
        shown = (await client.get(f"{METRICS_PATH}?name[]=INVENTED")).text
    assert "INVENTED" not in shown
    assert set(re.findall(r'task="([^"]*)"', shown)) == {"chat"}


async def test_metrics_are_shown_before_a_worker_is_ready_and_while_it_drains():
    worker = Worker(FakeEngine(), is_open=False)
    async with calling(worker) as client:
        assert (await client.get(METRICS_PATH)).status_code == 200
        worker.open()
        worker.gate.drain()
        assert (await client.get(METRICS_PATH)).status_code == 200
        assert (await client.get(METRICS_PATH, headers={"Host": "evil.com"})).status_code == 400
        assert (await client.post(METRICS_PATH)).status_code == 405


async def test_requests_that_fail_are_in_no_histogram():
    worker = Worker(FakeEngine(error=EngineStopped("gone"), gate=asyncio.Event()))
    async with calling(worker) as client:
        assert (await client.post("/v1/run", json={"text": "hi", "mode": "sentiment"})).status_code == 503
    assert worker.metrics.registry.get_sample_value("qwen_aio_request_duration_seconds_count", DECIDES) is None


def test_two_applications_count_apart():
    one, other = Counted(), Counted()
    one.decision("negative")
    assert other("request_duration_seconds_count", **DECIDES) is None


@pytest.mark.parametrize(("refused", "shown"), [(0, 0.0), (3, 3.0), (None, None)])
def test_what_the_egress_guard_refused_is_a_counter_where_there_is_one(refused, shown):
    registry = CollectorRegistry()
    registry.register(EgressMetrics(CountingGuard(refused)))
    assert registry.get_sample_value("qwen_aio_egress_refused_total") == shown
