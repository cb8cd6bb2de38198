"""Signing in with a browser: a form that takes a key once, and a cookie for the time after.

`EventSource` and links cannot send an Authorization header. The form works without a script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from qwen_aio.errors import HostRefused, InvalidRequest, KeyRefused, QwenAioError
from qwen_aio.language import Both, Language, Strings, language_for
from qwen_aio.serving.access.keys import Key
from qwen_aio.serving.access.rules import MAX_KEY_CHARS, Access
from qwen_aio.serving.access.sessions import SESSION_S
from qwen_aio.serving.guard import Worded
from qwen_aio.wire.error import CHALLENGE

NAME = "Qwen All-in-One"
STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, "PingFang SC", "Microsoft YaHei", sans-serif; }
body { display: grid; place-items: center; min-height: 90vh; margin: 0; }
main { width: min(24rem, 90vw); }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5em; margin-top: .5em; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE = """\
<!doctype html>
<html lang="{code}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main><h1>Qwen All-in-One</h1>{content}</main></body></html>
"""
FORM = """\
<form method="post" action="login">
<p{role}>{words}</p>
<label>{label} <input type="password" name="key" maxlength="{longest}" autocomplete="current-password" required
autofocus></label>
<button>{sign_in}</button>
<p><small>{hint}</small></p>
</form>
"""
SIGNED_IN = (
    '<p>{words}</p><p><a href="./">{back}</a></p><form method="post" action="logout"><button>{out}</button></form>'
)
HEADERS = {
    "Cache-Control": "no-store",
    # Without a referrer a browser would send a form with the origin "null", which the guard refuses.
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}


class LoginStrings(Strings):
    """The words of the form in one language."""

    sign_in = Both("Sign in", "登录")
    needed = Both("This server needs a key.", "访问此服务器需要密钥。")
    refused = Both("The server does not know this key.", "服务器不认识这个密钥。")
    label = Both("Key", "密钥")
    hint = Both(
        "Whoever runs the server makes one with: qwen-aio keys add NAME",
        "密钥由服务器的管理者用 qwen-aio keys add NAME 生成。",
    )
    signed_in = Both("You are signed in with the key {name} ({role}).", "已使用密钥 {name}（{role}）登录。")
    back = Both("Back", "返回")
    sign_out = Both("Sign out", "退出登录")
    other_name = Both(
        "This server does not answer to the name in your browser's address. Start it with --allowed-hosts and that "
        "name; for a reverse proxy see docs/reverse-proxy.md.",
        "服务器不接受浏览器地址栏中的名称。启动时请用 --allowed-hosts 加上该名称；"
        "使用反向代理时，见 docs/reverse-proxy.zh-CN.md。",
    )


STRINGS: Mapping[Language, LoginStrings] = {"en": LoginStrings("en"), "zh": LoginStrings("zh")}


class LoginRoutes:
    """`/login` and `/logout`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def login(self, request: Request) -> Response:
        """GET: the form, or who is signed in. POST: begin a session. Raises InvalidRequest."""
        strings = _strings_for(request.headers)
        if self._access.keys.is_open:
            return _redirect("./")
        if request.method == "POST":
            return self._begin(request, _stated_key(await request.body()), strings)
        key: Key | None = request.state.key
        return HTMLResponse(_form(strings) if key is None else _signed_in(key, strings), headers=HEADERS)

    async def logout(self, request: Request) -> Response:
        """End the session of this browser."""
        sessions = self._access.sessions
        token = request.cookies.get(sessions.cookie, "")
        if sessions.key_of(token, self._access.keys.keys) is not None:
            sessions.end(token)
        response = _redirect("login")
        response.delete_cookie(sessions.cookie, httponly=True, samesite="strict")
        return response

    def _begin(self, request: Request, secret: str, strings: LoginStrings) -> Response:
        key, sessions = self._access.keys.find(secret), self._access.sessions
        if key is None:
            return HTMLResponse(_form(strings, is_refused=True), 401, HEADERS | CHALLENGE)
        response = _redirect("./")
        is_tls = request.headers.get("origin", "").lower().startswith("https://")  # at the reverse proxy
        response.set_cookie(
            sessions.cookie, sessions.begin(key), SESSION_S, httponly=True, samesite="strict", secure=is_tls
        )
        return response


def with_pages(worded: Worded) -> Worded:
    """As `worded`, but a person who opens a page without a key gets the form, or reads which name is missing."""

    def worded_with_pages(error: QwenAioError, response: Response, scope: Scope) -> Response:
        headers = Headers(scope=scope)
        strings = _strings_for(headers)
        is_page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
        if is_page and isinstance(error, HostRefused):
            return HTMLResponse(_page(strings, f"<p>{escape(strings.other_name)}</p>"), 400, HEADERS)
        # Deeper paths would need another address of the form, and no person types them.
        if is_page and isinstance(error, KeyRefused) and scope["path"].count("/") == 1:
            return HTMLResponse(_form(strings), 401, HEADERS | CHALLENGE)
        return worded(error, response, scope)

    return worded_with_pages


def _strings_for(headers: Headers) -> LoginStrings:
    return STRINGS[language_for(headers.get("accept-language", ""))]


def _stated_key(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=1)
    except ValueError as exc:
        raise InvalidRequest("the form has one field, `key`", param="key") from exc
    return fields.get("key", [""])[0].strip()[:MAX_KEY_CHARS]


def _redirect(to: str) -> Response:
    """`to` is relative, so it holds behind any proxy."""
    return RedirectResponse(to, 303, {"Cache-Control": "no-store"})


def _form(strings: LoginStrings, *, is_refused: bool = False) -> str:
    content = FORM.format(
        role=' role="alert"' if is_refused else "",
        words=strings.refused if is_refused else strings.needed,
        label=strings.label,
        longest=MAX_KEY_CHARS,
        sign_in=strings.sign_in,
        hint=strings.hint,
    )
    return _page(strings, content, title=strings.sign_in)


def _signed_in(key: Key, strings: LoginStrings) -> str:
    words = escape(strings.signed_in.format(name=key.name, role=key.role))
    return _page(strings, SIGNED_IN.format(words=words, back=strings.back, out=strings.sign_out), title=strings.sign_in)


def _page(strings: LoginStrings, content: str, *, title: str = NAME) -> str:
    return PAGE.format(code=strings.code, title=title, style=STYLE, content=content)
