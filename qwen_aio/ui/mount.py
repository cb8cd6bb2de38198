"""The page on a FastAPI app; of Gradio only the paths that the page uses can be reached."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STYLE = Path(__file__).with_name("html") / "style.css"
TAB_SCRIPT = Path(__file__).with_name("tab.js")
SYSTEM_FONTS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
)
PAGE_PATHS = frozenset(
    {
        "/",
        "/theme.css",
        "/favicon.ico",
        "/gradio_api/app_id",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/run/predict",
    }
)
PAGE_FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")
# Gradio writes its own address into the page. Made relative, it works through any proxy.
RELATIVE_ROOT = (b"x-gradio-server", b".")

# What the page needs, and no more: scripts in the page and `Function` are Gradio's way of starting.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def mount_page(app: FastAPI, page: gr.Blocks) -> FastAPI:
    """Serve `page` at "/". Call it when the app has its own routes: the page takes all others.

    `app` sends the headers, CONTENT_SECURITY_POLICY among them.
    """
    gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=_theme(),
        css=STYLE.read_text(encoding="utf-8"),
        head=f"<script>{TAB_SCRIPT.read_text(encoding='utf-8')}</script>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    mount = app.routes[-1]
    assert isinstance(mount, Mount)
    mount.app = PageOnly(mount.app)
    return app


def _theme() -> gr.themes.Base:
    """System fonts, and the page's background from the first paint on; the rest is in style.css."""
    theme = gr.themes.Base(font=SYSTEM_FONTS, font_mono=("ui-monospace", "Consolas", "monospace"))
    return theme.set(body_background_fill="#f6f4ef", body_background_fill_dark="#13171a")


class PageOnly:
    """Lets through the paths that the page needs: no uploads, files, proxy, editor or statistics.

    Removes the headers Origin, which the app has checked and Gradio would answer with CORS
    permissions, and X-Forwarded-*, from which Gradio would take the address of its requests.
    """

    def __init__(self, gradio_app: ASGIApp) -> None:
        self._gradio_app = gradio_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HTTPException 404 for any other path."""
        path = scope["path"]
        if path not in PAGE_PATHS and not path.startswith(PAGE_FOLDERS):
            raise HTTPException(404)
        headers = [(name, value) for name, value in scope["headers"] if not _is_removed(name)]
        await self._gradio_app({**scope, "headers": [*headers, RELATIVE_ROOT]}, receive, _unbuffered(send))


def _is_removed(name: bytes) -> bool:
    return name in (b"origin", RELATIVE_ROOT[0]) or name.startswith(b"x-forwarded-")


def _unbuffered(send: Send) -> Send:
    """A `send` that asks nginx to pass on events as they come."""

    async def send_unbuffered(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/event-stream"):
                headers["X-Accel-Buffering"] = "no"
        await send(message)

    return send_unbuffered
