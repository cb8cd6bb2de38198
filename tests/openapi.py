"""The OpenAPI documents of both programs, and their stored copies, which show a change of the wire in review.

`python -m tests.openapi` rewrites the copies.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from jsonschema import Draft202012Validator

from qwen_aio.balancer.app import create_balancer_app
from qwen_aio.balancer.balancer import Balancer
from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.openapi.docs import DOCUMENT_PATH
from qwen_aio.serving.openapi.document import Document, to_text
from tests.asking import calling_app
from tests.fakes import FakeEngine
from tests.served import Worker

FOLDER = Path("docs/openapi")
REWRITE = "python -m tests.openapi"


def worker_app() -> FastAPI:
    return Worker(FakeEngine()).app


def balancer_app() -> FastAPI:
    gate = AdmissionGate()
    balancer = Balancer(Settings(), gate, status_dir=Path(tempfile.gettempdir()), egress=EgressGuard())
    return create_balancer_app(balancer, gate)


PROGRAMS: dict[str, Callable[[], FastAPI]] = {"worker": worker_app, "balancer": balancer_app}


async def document_of(program: str) -> Document:
    """As a client gets it."""
    async with calling_app(PROGRAMS[program]()) as client:
        return (await client.get(DOCUMENT_PATH)).json()


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def resolved(document: Document, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The shapes that a body may have."""
    names = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]
    return [document["components"]["schemas"][name] for name in names]


def check(document: Document, schema: dict[str, Any], value: object) -> None:
    """Raises jsonschema.ValidationError unless `value` is as `schema` says."""
    Draft202012Validator({"components": document["components"], **schema}).validate(value)


def rewrite() -> None:
    FOLDER.mkdir(exist_ok=True)
    for program in PROGRAMS:
        written = to_text(asyncio.run(document_of(program)))
        (FOLDER / f"{program}.json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
