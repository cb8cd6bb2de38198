"""A whole cluster that needs keys: programs, browsers, and what its processes tell of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.clusters import Cluster, cluster
from tests.e2e.conftest import Visit
from tests.e2e.processes import App, running

TEXT = {"text": "快递太慢了,差评!", "mode": "sentiment"}


@dataclass(frozen=True)
class Guarded:
    cluster: Cluster
    user: str
    admin: str


def keys(home: Path, *arguments: str) -> str:
    """The first line that `qwen-aio keys` prints: for `add`, the key."""
    command = [sys.executable, "-m", "qwen_aio.cli.main", "keys", *arguments, "--keys-file", str(home / "keys.json")]
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout.splitlines()[0]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("home")
    user, admin = keys(home, "add", "alice"), keys(home, "add", "ops", "--admin")
    with cluster(home, num_workers=1) as whole:  # ready: page, balancer and worker accept one another
        yield Guarded(whole, user, admin)


def sign_in(page: Page, key: str) -> None:
    page.locator("input[name=key]").fill(key)
    page.locator("button").click()


def test_every_process_needs_a_key_and_lets_its_own_in(guarded: Guarded) -> None:
    whole = guarded.cluster
    for port in whole.ports:
        app = App(whole.process, f"http://127.0.0.1:{port}", whole.home, whole.log)
        assert app.get("/livez")[0] == app.get("/readyz")[0] == 200
        assert app.get("/health")[0] == app.get("/health", headers=bearer(guarded.user + "x"))[0] == 401
        assert app.get("/health", headers=bearer(guarded.user))[0] == 200
    assert whole.post("/v1/run", TEXT)[0] == 401
    status, body = whole.post("/v1/run", TEXT, headers=bearer(guarded.user))
    assert (status, body["label"], body["worker"]) == (200, "negative", "qwen-1")
    ready = {"state": "ready"}
    assert whole.post("/admin/workers/qwen-1", ready, headers=bearer(guarded.user))[0] == 403
    assert whole.post("/admin/workers/qwen-1", ready, headers=bearer(guarded.admin))[0] == 200


def test_the_page_asks_for_a_key_and_lets_go_of_it(guarded: Guarded, visit: Visit) -> None:
    page = visit(f"{guarded.cluster.page_url}/login")
    sign_in(page, guarded.user)
    page.locator("#text textarea").fill(TEXT["text"])
    page.locator("#text textarea").press("Enter")
    expect(page.locator(".decided")).to_contain_text("Negative")
    expect(page.locator("#about a")).to_have_attribute("href", "login")
    leaving = page.context.new_page()  # not this one: Gradio's script complains when it is left
    leaving.goto(f"{guarded.cluster.page_url}/login")
    expect(leaving.locator("main")).to_contain_text("alice")
    leaving.get_by_role("button", name="Sign out").click()
    expect(leaving.locator("input[name=key]")).to_be_visible()


def test_the_dashboard_is_live_for_whoever_has_signed_in(guarded: Guarded, visit: Visit) -> None:
    page = visit(f"{guarded.cluster.url}/login")
    sign_in(page, guarded.admin)
    expect(page.locator("#live")).to_be_visible()
    expect(page.locator("nav")).to_contain_text("Signed in: ops")


def test_an_open_dashboard_ends_with_its_key(guarded: Guarded, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{guarded.cluster.url}/login")
    sign_in(page, keys(guarded.cluster.home, "add", "carol"))
    expect(page.locator("#live")).to_be_visible()
    keys(guarded.cluster.home, "revoke", "carol")
    expect(page.locator("input[name=key]")).to_be_visible()
    page.close()


def test_a_revoked_key_ends_at_once_and_nothing_tells_of_any(guarded: Guarded) -> None:
    whole = guarded.cluster
    key = keys(whole.home, "add", "bob")
    assert whole.post("/v1/run", TEXT, headers=bearer(key))[0] == 200
    keys(whole.home, "revoke", "bob")
    assert whole.post("/v1/run", TEXT, headers=bearer(key))[0] == 401
    own = (whole.home / "service.key").read_text().strip()
    told = whole.log.read_text() + " ".join(word for process in whole.everybody() for word in process.cmdline())
    assert not [secret for secret in (key, own, guarded.user, guarded.admin) if secret in told]


def test_a_server_beyond_this_machine_starts_with_keys_alone(tmp_path: Path) -> None:
    with running(tmp_path, "--host", "0.0.0.0", program="balancer.py", wait=False) as app:
        assert app.process.wait(timeout=120) == 1
        assert "qwen-aio keys add NAME" in app.log.read_text()
    keys(tmp_path, "add", "alice")
    with running(tmp_path, "--host", "0.0.0.0", program="balancer.py", wait=False) as app:
        app.wait_until("served", app.is_alive)
        assert app.get("/status")[0] == 401 and re.search(r"open http://127\.0\.0\.1", app.log.read_text())
