"""A real Prometheus scrapes a real cluster, by the files of deploy/."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.clusters import cluster
from tests.e2e.processes import free_port
from tests.prometheus import prometheus, query

DONE = 'qwen_aio_decisions_total{task="sentiment",label="negative"}'


def test_prometheus_scrapes_balancer_and_workers(tmp_path: Path) -> None:
    with cluster(tmp_path / "home", num_workers=1) as running:
        balancer, worker = urlsplit(running.url).netloc, f"127.0.0.1:{running.ports[2]}"
        addresses = {"127.0.0.1:8000": balancer, '"127.0.0.1:7861", "127.0.0.1:7961", "127.0.0.1:8061"': worker}
        port = free_port()
        with prometheus(tmp_path / "prometheus", {**addresses, "15s": "1s"}, port=port):
            status, _ = running.post("/v1/run", {"text": "快递太慢了,差评!"})
            assert status == 200
            everybody = {balancer: 1.0, worker: 1.0}
            running.wait_until("scraped", lambda: query(port, "up") == query(port, DONE) == everybody)
            assert query(port, "qwen_aio_workers_ready") == {balancer: 1.0}
            assert query(port, 'ALERTS{alertstate="firing"}') == {}
