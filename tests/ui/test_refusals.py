"""A refusal of the guard before a page: for programs, for the page's script, and for people."""

from __future__ import annotations

import httpx
import pytest

from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import create_app
from qwen_aio.serving.health_routes import Health
from qwen_aio.ui.refusals import worded

FOREIGN = {"Origin": "http://qwen.example"}
CALL = "/gradio_api/queue/join"


async def refused(method: str, path: str, **headers: str) -> httpx.Response:
    app = create_app(AdmissionGate(), routes=[], health=lambda: Health({}, None), worded=worded)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await client.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})


@pytest.mark.parametrize(("language", "words"), [("en", "Refused: "), ("zh-CN,en", "已被拒绝"), ("fr", "Refused: ")])
async def test_the_pages_script_gets_a_sentence_in_the_visitors_language(language: str, words: str) -> None:
    response = await refused("POST", CALL, accept_language=language, **FOREIGN)
    body = response.json()
    assert response.status_code == 403 and body["error"]["code"] == "origin_refused"
    assert body["detail"].startswith(words) and "proxy_set_header Host $http_host;" in body["detail"]
    assert response.headers["x-request-id"] == body["error"]["request_id"]


async def test_what_has_no_words_of_its_own_is_body_as_it_is() -> None:
    response = await refused("POST", CALL, content_encoding="gzip")
    assert response.json()["detail"] == response.json()["error"]["message"]


async def test_a_person_gets_a_page_and_a_program_json() -> None:
    page = await refused("GET", "/", host="evil.example", accept="text/html,*/*;q=0.8", accept_language="zh")
    assert page.status_code == 400 and page.headers["content-type"].startswith("text/html")
    assert "--allowed-hosts" in page.text and 'lang="zh-CN"' in page.text
    assert page.headers["content-security-policy"] and page.headers["x-content-type-options"] == "nosniff"
    plain = await refused("GET", "/", host="evil.example")
    assert plain.json()["error"]["code"] == "host_refused" and "detail" not in plain.json()
