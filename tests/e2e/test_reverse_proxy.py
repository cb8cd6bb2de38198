"""Page and dashboard behind a real nginx, by the block that docs/reverse-proxy.md gives, and by worse ones."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.clusters import Cluster, cluster
from tests.e2e.conftest import Visit
from tests.e2e.processes import App, free_port, running
from tests.nginx import BALANCER, HOST_LINE, PAGE, documented, nginx

NAME = "qwen.localhost"  # a browser looks for it on this machine; a server allows it only if told
STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"
DOCUMENTED = documented()
DEFAULT_HOST = DOCUMENTED.replace(HOST_LINE, "")
FORWARDED = DOCUMENTED.replace(HOST_LINE, "    proxy_set_header X-Forwarded-Host $http_host;\n")
UNCUT = DOCUMENTED.replace("7860/;", "7860;").replace("8000/;", "8000;")


@dataclass(frozen=True)
class Site:
    """Both servers, and the addresses that a visitor types: by block of nginx."""

    page: App
    balancer: Cluster
    by_block: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("home")
        page = stack.enter_context(running(home / "single", "--allowed-hosts", NAME))
        balancer = stack.enter_context(cluster(home / "cluster", "--allowed-hosts", NAME, num_workers=2))
        servers = {PAGE: urlsplit(page.url).netloc, BALANCER: urlsplit(balancer.url).netloc}
        ports = {
            block: stack.enter_context(nginx(home / str(number), block, servers))
            for number, block in enumerate((DOCUMENTED, DEFAULT_HOST))
        }
        yield Site(page, balancer, {block: f"http://{NAME}:{port}" for block, port in ports.items()})


def expect_an_answer(page: Page) -> None:
    expect(page.locator("#mode label")).to_have_count(4)
    box = page.locator("#text textarea")
    box.fill(STORY)
    box.press("Enter")
    expect(page.locator(".decided")).to_contain_text("Negative")
    expect(page.locator(".assistant .bubble")).to_have_text(re.compile(r"\S{2,}"))
    expect(page.locator("#send")).to_be_visible()


# `visit` checks that every request goes to the address typed, and that nothing is missing.


@pytest.mark.parametrize("path", ["/qwen", *in_campaign("/qwen/", "/qwen/?from=a-mail")])
def test_the_page_works_below_a_path(path: str, site: Site, visit: Visit) -> None:
    expect_an_answer(visit(site.by_block[DOCUMENTED] + path))


def test_the_dashboard_works_below_a_path(site: Site, visit: Visit) -> None:
    page = visit(site.by_block[DOCUMENTED] + "/balancer/")
    expect(page.locator("#live")).to_be_visible()
    page.get_by_role("button", name="Drain qwen-2").click()
    worker = page.locator('#workers tbody[data-id="qwen-2"]')
    expect(worker).to_have_attribute("data-admin", "drain")
    page.get_by_role("button", name="Resume qwen-2").click()
    expect(worker).to_have_attribute("data-admin", "ready")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("#live")).to_be_visible()
    page.get_by_role("link", name="/history").click()
    expect(page.locator("body")).to_contain_text('"moments"')


@pytest.mark.parametrize(
    ("locale", "words"),
    [("zh-CN", "与浏览器地址栏中的不同"), *in_campaign(("en-US", "under another name than the one"))],
)
@only_in_campaign
def test_with_nginxs_own_host_the_page_says_what_to_set(locale: str, words: str, site: Site, browser: Browser) -> None:
    with browser.new_context(locale=locale) as context:  # not `visit`: a browser complains of refusals
        page = context.new_page()
        page.goto(site.by_block[DEFAULT_HOST] + "/qwen/")
        told = page.locator(".toast-body.error").filter(has_text=words)
        expect(told.first).to_contain_text("proxy_set_header Host $http_host;")
        told.first.click()
        expect(told).to_have_count(0)
        page.locator("#text textarea").fill(STORY)
        page.locator("#send").click()
        expect(told.first).to_contain_text("--allowed-hosts")
        expect(page.locator("#text textarea")).to_have_value(STORY)


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "under another name than the one"), *in_campaign(("zh", "与浏览器地址栏中的不同"))],
)
def test_with_nginxs_own_host_the_dashboard_says_what_to_set(
    language: str, words: str, site: Site, browser: Browser
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.by_block[DEFAULT_HOST]}/balancer/?lang={language}")
        expect(page.locator("#live")).to_be_visible()
        page.locator('#workers tbody[data-id="qwen-2"] [data-set=drain]').click()
        expect(page.locator("#trouble")).to_contain_text(words)
        expect(page.locator("#trouble")).to_contain_text("proxy_set_header Host $http_host;")
        expect(page.locator('#workers tbody[data-id="qwen-2"]')).to_have_attribute("data-admin", "ready")


@pytest.mark.parametrize(
    ("locale", "words"),
    [("en-US", "does not answer to the name"), *in_campaign(("zh-CN", "不接受浏览器地址栏中的名称"))],
)
def test_a_name_that_is_not_allowed_is_a_page_that_says_so(
    locale: str, words: str, site: Site, browser: Browser
) -> None:
    with browser.new_context(locale=locale) as context:
        page = context.new_page()
        page.goto(site.by_block[DOCUMENTED].replace(NAME, "other.localhost") + "/qwen/")
        expect(page.locator("p")).to_contain_text(words)
        expect(page.locator("p")).to_contain_text("--allowed-hosts")


@only_in_campaign
def test_a_tab_finds_its_server_again_behind_a_proxy_too(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with (
        browser.new_context(locale="en-US") as context,
        nginx(tmp_path / "nginx", DOCUMENTED, {PAGE: f"127.0.0.1:{port}"}) as front,
    ):
        page = context.new_page()
        with running(tmp_path / "home", port=port) as app:
            page.goto(f"http://localhost:{front}/qwen/")
            expect_an_answer(page)
            app.stop(signal.SIGKILL)
        page.locator("#text textarea").fill("And now?")
        page.locator("#send").click()
        expect(page.locator(".toast-body")).to_contain_text("Connection to the server was lost")
        with running(tmp_path / "home", port=port):
            expect(page.locator(".toast-body")).to_have_count(0)
            expect(page.locator("#text textarea")).to_have_value("And now?")
            page.locator("#send").click()
            expect(page.locator(".user .bubble")).to_have_text([STORY, "And now?"])
            expect(page.locator(".assistant .bubble")).to_have_count(2)


@pytest.mark.parametrize(
    ("block", "flags"),
    [(FORWARDED, ("--trusted-proxies", "127.0.0.0/8")), *in_campaign((UNCUT, ("--root-path", "/qwen")))],
    ids=str,
)
def test_flags_make_up_for_what_a_proxy_does_not_do(
    block: str, flags: tuple[str, str], visit: Visit, tmp_path: Path
) -> None:
    with (
        running(tmp_path / "home", "--allowed-hosts", NAME, *flags) as app,
        nginx(tmp_path / "nginx", block, {PAGE: urlsplit(app.url).netloc}) as port,
    ):
        page = visit(f"http://{NAME}:{port}/qwen/")
        expect_an_answer(page)
        page.close()  # before the server, of whose end it would complain
        assert app.get("/readyz")[0] == 200
