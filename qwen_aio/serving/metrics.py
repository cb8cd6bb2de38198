"""What a server counts for Prometheus, and the route that shows it: `GET /metrics`.

Worker and balancer give the same thing the same name. Everything is counted when an engine request
has ended, nothing in a step of the engine. A label takes only values that the server knows itself:
no request can invent one. Each application has a registry of its own. Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from qwen_aio.core import Task
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.result import Answer, Decision
from qwen_aio.serving.openapi.endpoint import Endpoint

METRICS_PATH = "/metrics"
PREFIX = "qwen_aio_"
TASK = ("task", "kind")  # kind: "decision" or "generation"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
OTHER = "other"  # a label that the task does not have, said by a worker of another version


class RequestMetrics:
    """Counts the engine requests that were done, by task. `registry` is the application's."""

    def __init__(self, *, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """`running` and `waiting` are the numbers of requests at the moment."""
        self.registry = CollectorRegistry()
        self._queue = self._histogram("request_queue_time", "From arrival until work began")
        self._first = self._histogram("time_to_first_token", "From arrival to an answer's first token")
        self._gap = self._histogram("inter_token_latency", "Between two tokens, the mean of an answer", TOKEN_SECONDS)
        self._total = self._histogram("request_duration", "From arrival to the end")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts", TASK)
        self._cached = self._counter("prefix_cache_hit_tokens", "Tokens of prompts that were not computed again", TASK)
        self._generated = self._counter("generation_tokens", "Tokens of answers", TASK)
        self._decisions = self._counter("decisions", "Decisions, by outcome", ("task", "label", "confidence"))
        for name, value, what in (("running", running, "being computed"), ("waiting", waiting, "that wait")):
            Gauge(f"{PREFIX}requests_{name}", f"Requests {what}", registry=self.registry).set_function(value)

    def observe(self, task: Task, outcome: Decision | Answer, *, is_resumed: bool) -> None:
        """A request of `task` is done; `is_resumed` if another worker began the answer."""
        labels = (task.name, task.kind)
        self._queue.labels(*labels).observe(outcome.timings.queue_ms / 1000)
        self._total.labels(*labels).observe(outcome.timings.total_ms / 1000)
        if isinstance(outcome, Decision):
            label = outcome.label if outcome.label in {each.name for each in task.labels} else OTHER
            self._decisions.labels(task.name, label, outcome.confidence).inc()
        if is_resumed:
            return  # its tokens are those of the whole answer, its times of the end alone
        self._prompt.labels(*labels).inc(outcome.usage.prompt_tokens)
        self._cached.labels(*labels).inc(outcome.usage.cached_tokens)
        self._generated.labels(*labels).inc(outcome.usage.completion_tokens)
        self._observe_tokens(labels, outcome)

    def _observe_tokens(self, labels: Sequence[str], outcome: Decision | Answer) -> None:
        """The mean stands for all gaps: one observation a token would cost more than the token's frame."""
        timings, num_tokens = outcome.timings, outcome.usage.completion_tokens
        if num_tokens > 0:
            self._first.labels(*labels).observe((timings.queue_ms + timings.prefill_ms) / 1000)
        if num_tokens > 1:
            self._gap.labels(*labels).observe(timings.decode_ms / 1000 / (num_tokens - 1))

    def _histogram(self, name: str, description: str, buckets: Sequence[float] = SECONDS) -> Histogram:
        return Histogram(f"{PREFIX}{name}_seconds", description, TASK, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        return Counter(f"{PREFIX}{name}", description, labels, registry=self.registry)


class EgressMetrics(Collector):
    """What the egress guard of this process has refused; nothing with --no-offline."""

    def __init__(self, egress: EgressGuard) -> None:
        self._egress = egress

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for every `GET /metrics`."""
        if (refused := self._egress.refused) is not None:
            yield CounterMetricFamily(f"{PREFIX}egress_refused", "Attempts to reach another machine, refused", refused)


def metrics_route(registry: CollectorRegistry) -> Endpoint:
    """`GET /metrics`, also while the server starts or drains."""

    async def metrics(_: Request) -> Response:
        headers = {"Cache-Control": "no-store"}
        return Response(generate_latest(registry), headers=headers, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Endpoint(
        METRICS_PATH, metrics, name="metrics", tag="Watching", summary="What the server counts, for Prometheus"
    )
