"""The whole way without a network: a real bundle, with torch, installed and serving where there is no route to anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundling.packages import unpack
from tests.campaign import only_in_campaign
from tests.e2e.processes import ROOT

# Alone in a network of its own: install, start a worker by the published command, ask it, and let it end.
SERVES = """\
import json, pathlib, subprocess, sys, time, urllib.request
folder = pathlib.Path(sys.argv[1])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["/bin/sh", str(folder / "install.sh")], check=True, stdout=sys.stderr)
worker = subprocess.Popen([sys.executable, "app.py", "--mode", "worker", "--port", "7861", "--id", "qwen-1"], cwd=folder, stdout=sys.stderr)
try:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen("http://127.0.0.1:7861/readyz")
            break
        except OSError:
            assert worker.poll() is None and time.monotonic() < deadline, "not ready"
            time.sleep(0.1)
    body = json.dumps({"text": "快递太慢了,差评!", "reply": True}).encode()
    request = urllib.request.Request("http://127.0.0.1:7861/v1/run", body, {"Content-Type": "application/json"})
    print(urllib.request.urlopen(request).read().decode())
finally:
    worker.terminate()
sys.exit(worker.wait())
"""


@pytest.fixture(scope="module")
def alone() -> tuple[str, ...]:
    """What makes a command run in a network without any route."""
    command = (shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--net")
    try:
        subprocess.run([*command, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces here")
    return command


@only_in_campaign
@pytest.mark.timeout(1800)
def test_a_real_bundle_is_installed_and_serves_without_a_network(alone, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    tar = tmp_path / "bundle.tar"
    making = [sys.executable, "-m", "qwen_aio.cli.main", "bundle", "-o", str(tar)]
    made = subprocess.run(
        making, cwd=ROOT, env=environment | {"QWEN_AIO_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "no native library" not in made.stderr
    folder = unpack(tar, tmp_path, name="qwen-aio-1")
    environment.pop("PYTHONPATH", None)
    command = [*alone, sys.executable, "-c", SERVES, str(folder)]
    served = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert served.returncode == 0, served.stderr
    answer = json.loads(served.stdout)
    assert (answer["label"], answer["worker"]) == ("negative", "qwen-1") and answer["reply"]["text"]
    assert (folder / "status/status.json").is_file()
