"""The static files of the page: read once, looked up by name. No path of a request is opened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from qwen_aio.errors import UnknownPath

FOLDER = Path(__file__).with_name("static")
MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFile:
    """One file as it is sent."""

    content: bytes
    media: str
    etag: str


class Files:
    """`GET /static/{name}`."""

    def __init__(self) -> None:
        self._files = {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in MEDIA}

    async def get(self, request: Request) -> Response:
        """The file, or 304 for a browser that has it. Raises UnknownPath."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise UnknownPath("no file of the dashboard has this name")
        # Revalidated every time, so that an upgrade shows at once.
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media)


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, MEDIA[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
