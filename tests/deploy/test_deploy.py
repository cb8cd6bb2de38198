"""The files for Prometheus and Grafana: sound, and about metrics that there are and that move."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from qwen_aio.balancer.metrics import BalancerMetrics
from qwen_aio.core import Request
from qwen_aio.serving.metrics import EgressMetrics
from tests.balancer.balanced import Service, balanced
from tests.balancer.chaos import Fault
from tests.balancer.fake_view import FakeView
from tests.fakes import FakeEngine
from tests.prometheus import CONFIG, DASHBOARD, RULES, promtool

ERROR_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NUM_HELD = 16  # answers: more than two workers have slots for


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> list[str]:
    """The queries of the dashboard, as Grafana sends them."""
    written = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [each.replace("$__rate_interval", "1m").replace("$job", "qwen-aio-balancer") for each in written]


def named() -> set[str]:
    """The metrics that dashboard and rules name."""
    rules = re.sub(r"^\s*#.*$", "", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return set(re.findall(r"\bqwen_aio_\w+", "\n".join([rules, *expressions()])))


# ---- the files ----


def test_prometheus_accepts_configuration_and_rules() -> None:
    assert "3 rules found" in promtool("check", "config", CONFIG)


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    tests = Path(__file__).with_name("rules.test.yml")
    promtool("test", "rules", tests)
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8")))
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tests.read_text(encoding="utf-8"))
    assert set(fired) == alerts


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_the_panels_of_the_dashboard_fill_the_grid_without_a_gap() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = list(itertools.chain.from_iterable(map(cells_of, panels())))
    height = max(y for _, y in cells) + 1
    assert sorted(cells) == sorted(itertools.product(range(24), range(height)))


def cells_of(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    x, y, w, h = (panel["gridPos"][side] for side in "xywh")
    return itertools.product(range(x, x + w), range(y, y + h))


# ---- what they name ----


@pytest.mark.parametrize("page", ["docs/monitoring.md", "docs/monitoring.zh-CN.md"])
def test_the_page_lists_every_metric_and_no_other(page: str) -> None:
    tables = re.findall(r"^\| (`[a-z_`、, ]+`) \|", Path(page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = [name for cell in tables for name in re.findall(r"\w+", cell)]
    balancer = BalancerMetrics(FakeView().snapshot)
    balancer.registry.register(EgressMetrics(SimpleNamespace(refused=0)))
    metrics = balancer.registry.collect()
    names = [f"{metric.name}{'_total' if metric.type == 'counter' else ''}" for metric in metrics]
    assert sorted(listed) == sorted(name.removeprefix("qwen_aio_") for name in names)


@dataclass
class Watched:
    """What a balancer and its workers have shown so far: at every look the values of each metric."""

    service: Service
    session: aiohttp.ClientSession
    looks: list[dict[str, set[object]]] = field(default_factory=list)

    async def look(self) -> None:
        urls = [self.service.url, *(path.url for path in self.service.paths.values())]
        shown: dict[str, set[object]] = {}
        for url in urls:
            try:
                async with self.session.get(f"{url}/metrics") as response:
                    text = await response.text()
            except aiohttp.ClientError:
                continue  # a worker that was killed
            for sample in (each for family in text_string_to_metric_families(text) for each in family.samples):
                shown.setdefault(sample.name, set()).add((url, frozenset(sample.labels.items()), sample.value))
        self.looks.append(shown)

    def moves(self, name: str) -> bool:
        """Whether it was not the same at every look; at the first one it may have been absent."""
        return any(look.get(name) != self.looks[0].get(name) for look in self.looks)

    async def ask(self, mode: str) -> None:
        await self.service.client.run(Request("hi", mode=mode))


async def test_every_metric_that_they_name_exists_and_moves_in_a_run(tmp_path: Path) -> None:
    held = asyncio.Event()
    held.set()
    workers = {name: FakeEngine(gate=held) for name in ("a", "b")}
    async with balanced(workers, tmp_path) as service, aiohttp.ClientSession() as session:
        watched = Watched(service, session)
        await watched.look()
        for mode in ("sentiment", "chat"):
            await watched.ask(mode)
            await watched.look()
        await _let_some_wait(watched, held)
        await _fail(watched)
        service.balancer.set_admin("b", "drain", force=True)
        await watched.look()
        service.paths["a"].kill()
        await service.until(lambda: service.row("a").health == "down")
        await watched.look()
    assert named() - set().union(*watched.looks) == set(), "no such metric"
    assert {name for name in named() if not watched.moves(name)} == set(), "it stood still"


async def _let_some_wait(watched: Watched, held: asyncio.Event) -> None:
    held.clear()
    asking = [asyncio.create_task(watched.ask("chat")) for _ in range(NUM_HELD)]
    await watched.service.until(lambda: watched.service.balancer.snapshot().waiting)
    await watched.look()
    held.set()
    await asyncio.gather(*asking, return_exceptions=True)  # on a busy machine one may have waited for too long


async def _fail(watched: Watched) -> None:
    """Until a breaker opens."""
    for path in watched.service.paths.values():
        path.fault = Fault(reply=ERROR_500)
    while all(row.breaker == "closed" for row in watched.service.balancer.snapshot().workers):
        await asyncio.gather(watched.ask("sentiment"), return_exceptions=True)
    await watched.look()
