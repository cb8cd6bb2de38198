"""A whole cluster with a certificate: balancer, page and command line, each checked as its users check it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.certificates import make_pair
from tests.e2e.clusters import cluster


def curl(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-s", "--max-time", "60", *more, url], capture_output=True, text=True)


def test_a_cluster_speaks_tls(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "cluster")
    trust = ("--cacert", str(pair.certificate))
    flags = ("--model", "bundled", "--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with cluster(tmp_path / "home", *flags, num_workers=1) as running:
        page, balancer, _ = (f"https://localhost:{port}" for port in running.ports)
        body = ("-H", "Content-Type: application/json", "-d", '{"text": "快递太慢了,差评!"}')
        assert json.loads(curl(f"{balancer}/v1/run", *trust, *body).stdout)["label"] == "negative"
        assert "<html" in curl(f"{page}/", *trust, "-H", "Accept: text/html").stdout
        assert f"https://127.0.0.1:{running.ports[1]}" in running.log.read_text()
        assert curl(f"{balancer}/livez").returncode == 60  # nobody vouches for it
        assert curl(running.url + "/livez").returncode != 0  # plain HTTP
        command = [sys.executable, "-m", "qwen_aio.cli.main", "run", "差评", "--url", balancer]
        asked = subprocess.run([*command, "--tls-ca", str(pair.certificate)], capture_output=True, text=True)
        assert "负面" in asked.stdout, asked.stderr
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1 and "certificate" in refused.stderr.lower(), refused.stderr
