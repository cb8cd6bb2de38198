"""`/openapi.json`, and `/docs`, which shows the same to people.

The page is rendered here, from the document alone: no script, no file from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from qwen_aio.serving.openapi.document import Document, document
from qwen_aio.serving.openapi.kinds import kind_of
from qwen_aio.wire.shape import JSON_MEDIA

DOCUMENT_PATH, PAGE_PATH = "/openapi.json", "/docs"
FRESH = {"Cache-Control": "no-cache"}
FOLDER = Path(__file__).parent
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class ProgramInfo:
    """What a document says of its program; `health` is the shape of the reply of /health."""

    title: str
    description: str
    health: Any


def describing_routes(routes: Sequence[BaseRoute], info: ProgramInfo) -> list[Route]:
    """The routes that show what `routes` are."""
    pages = DocsRoutes(routes, info)
    return [Route(DOCUMENT_PATH, pages.document), Route(PAGE_PATH, pages.page)]


class DocsRoutes:
    """Made when they are first asked for: a server that nobody asks need not spend the time."""

    def __init__(self, routes: Sequence[BaseRoute], info: ProgramInfo) -> None:
        self._routes = routes
        self._info = info

    async def document(self, _: Request) -> Response:
        """For programs."""
        return Response(await run_in_threadpool(lambda: self._json), headers=FRESH, media_type=JSON_MEDIA)

    async def page(self, _: Request) -> Response:
        """For people."""
        html, policy = await run_in_threadpool(lambda: self._html)
        return HTMLResponse(html, headers=FRESH | {"Content-Security-Policy": policy})

    @cached_property
    def _document(self) -> Document:
        return document(self._routes, title=self._info.title, description=self._info.description)

    @cached_property
    def _json(self) -> bytes:
        return json.dumps(self._document, ensure_ascii=False).encode()

    @cached_property
    def _html(self) -> tuple[str, str]:
        """The page, and its policy: its own style and nothing else."""
        return page_of(self._document)


def page_of(written: Document) -> tuple[str, str]:
    """The page that shows `written`, and its Content-Security-Policy. Everything passes Jinja's escaping."""
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"kind": kind_of, "prose": _prose, "json": _as_json}
    style = (FOLDER / "docs.css").read_text(encoding="utf-8")
    html = environment.get_template("docs.html.j2").render(document=written, tags=_by_tag(written), style=style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        html,
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    )


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _prose(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _by_tag(written: Document) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Tag -> method, path and operation."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in written["paths"].items():
        for method, operation in operations.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return found
