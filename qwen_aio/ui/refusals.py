"""The guard's refusals in a visitor's language.

Programs read `error`; Gradio's script shows only `detail`; a person who opens the page gets a page.
"""

from __future__ import annotations

import json
from html import escape

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from qwen_aio.errors import QwenAioError
from qwen_aio.language import language_for
from qwen_aio.ui.strings import STRINGS

GRADIO_CALLS = "/gradio_api/"
JSON_MEDIA = "application/json"
PAGE = '<!doctype html><html lang="{code}"><meta charset="utf-8"><title>Qwen All-in-One</title><p>{words}</p></html>'


def worded(error: QwenAioError, response: Response, scope: Scope) -> Response:
    """`response`, which reports `error` as JSON, in the form that this client can show."""
    headers = Headers(scope=scope)
    strings = STRINGS[language_for(headers.get("accept-language", ""))]
    words = strings.refusals.get(error.code, error.message)
    if scope["path"].startswith(GRADIO_CALLS):
        return _with_body(response, json.dumps(json.loads(bytes(response.body)) | {"detail": words}), JSON_MEDIA)
    if "text/html" in headers.get("accept", ""):
        return _with_body(response, PAGE.format(code=strings.code, words=escape(words)), "text/html; charset=utf-8")
    return response


def _with_body(response: Response, body: str, media: str) -> Response:
    response.body = body.encode()
    response.headers["content-length"] = str(len(response.body))
    response.headers["content-type"] = media
    return response
