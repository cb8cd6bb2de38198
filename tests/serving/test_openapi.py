"""The OpenAPI documents: complete, true, and the same as their stored copies."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from qwen_aio.errors import QwenAioError
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.rules import RULES
from qwen_aio.serving.openapi.document import to_text
from qwen_aio.wire.error import http_status
from tests.asking import calling, calling_app, check_refusal
from tests.balancer.balanced import balanced
from tests.fakes import FakeEngine
from tests.keys import SECRETS, bearer, file_of_keys
from tests.openapi import FOLDER, PROGRAMS, REWRITE, check, document_of, operations, resolved
from tests.served import Worker

# Pages, files and forms, for browsers; and what a balancer asks of a worker.
NOT_DESCRIBED = {
    *("/", "/static/{name}", "/login", "/logout", "/docs", "/openapi.json"),
    *("/v1/{rest:path}", "/internal/call", "/internal/tokens"),
}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_change_of_the_wire_is_seen_in_review(program):
    stored = (FOLDER / f"{program}.json").read_text(encoding="utf-8")
    assert to_text(await document_of(program)) == stored, f"the wire has changed; if it should have: {REWRITE}"


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_route_is_described_or_known_not_to_be(program):
    app = PROGRAMS[program]()
    described = {path for _, path, _ in operations(await document_of(program))}
    served = {route.path for route in app.routes} - NOT_DESCRIBED
    assert {path.replace(":path", "") for path in served} == described
    assert set(RULES) >= NOT_DESCRIBED


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_field_shape_parameter_and_answer_has_words(program):
    document = await document_of(program)
    fields = {
        f"{name}.{field}": schema
        for name, shape in document["components"]["schemas"].items()
        for field, schema in {"": shape, **shape.get("properties", {})}.items()
    }
    assert [name for name, schema in fields.items() if not schema.get("description")] == []
    for _, path, operation in operations(document):
        assert operation["summary"] and operation["tags"], path
        assert all(parameter["description"] for parameter in operation.get("parameters", ())), path
        assert all(response["description"] for response in operation["responses"].values()), path
        assert "422" not in operation["responses"], path


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_code_stands_at_its_status(program):
    kinds = {QwenAioError.code: QwenAioError, **{kind.code: kind for kind in _family(QwenAioError)}}
    for _, path, operation in operations(await document_of(program)):
        for status, response in operation["responses"].items():
            if status != "200":
                codes = [line.split("`")[1] for line in response["description"].splitlines()]
                assert codes and {http_status(kinds[code]("")) for code in codes} == {int(status)}, path
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))


def _family(kind: type[QwenAioError]) -> list[type[QwenAioError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _family(child))]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_example_is_a_request_whose_answer_is_as_documented(program, tmp_path):
    document = await document_of(program)
    async with balanced({"qwen-1": FakeEngine(), "qwen-2": FakeEngine()}, tmp_path) as service:
        worker = Worker(FakeEngine())
        asking = calling(worker) if program == "worker" else httpx.AsyncClient(base_url=service.url)
        async with asking as client:
            assert await count_checked(document, client) >= 20


async def count_checked(document: dict[str, Any], client: httpx.AsyncClient) -> int:
    """Post every example, get every other route."""
    count = 0
    for method, path, operation in operations(document):
        address = path
        for parameter in operation.get("parameters", ()):
            address = address.replace(f"{{{parameter['name']}}}", parameter["schema"].get("examples", [""])[0])
        if list(operation["responses"]["200"]["content"]) == ["text/event-stream"]:
            continue  # it never ends; see test_dashboard.py
        for body in examples(document, operation):
            response = await client.request(method, address, **({} if body is None else {"json": body}))
            assert response.status_code == 200, (path, body, response.text)
            check_answer(document, operation, response)
            count += 1
    return count


def examples(document: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any] | None]:
    if "requestBody" not in operation:
        return [None]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    found = [example for shape in resolved(document, schema) for example in shape["examples"]]
    for example in found:
        check(document, schema, example)
    assert found
    return found


def check_answer(document: dict[str, Any], operation: dict[str, Any], response: httpx.Response) -> None:
    media = response.headers["content-type"].split(";")[0]
    content = operation["responses"]["200"]["content"][media]
    if media == "application/json":
        check(document, content["schema"], response.json())
    elif media == "text/event-stream":
        for event in events(response.text):
            check(document, content["itemSchema"], event)
            kinds = [kind["properties"] for kind in content["itemSchema"]["anyOf"]]
            named = [kind["data"] for kind in kinds if kind.get("event", {}).get("const") == event.get("event")]
            check(document, named[0]["contentSchema"], json.loads(event["data"]))


def events(text: str) -> list[dict[str, str]]:
    frames = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in text.split("\n\n") if frame]
    assert frames
    return [frame for frame in frames if frame["data"] != "[DONE]"]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_a_key_is_needed_where_keys_are(path, tmp_path):
    async with calling(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as client:
        check_refusal(await client.get(path), 401, "invalid_api_key")
        assert (await client.get(path, headers=bearer(SECRETS["user"]))).status_code == 200


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_page_shows_every_route_and_shape_and_runs_nothing(program):
    async with calling_app(PROGRAMS[program]()) as client:
        response = await client.get("/docs")
    document = await document_of(program)
    for _, path, operation in operations(document):
        assert f'id="{operation["operationId"]}"' in response.text and path in response.text
    assert all(f'id="{name}"' in response.text for name in document["components"]["schemas"])
    assert "<script" not in response.text
    assert "script-src" not in response.headers["content-security-policy"]
    assert response.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
