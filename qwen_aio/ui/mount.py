"""The page on a FastAPI app, with nothing of Gradio reachable that the page does not use."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

STYLE = Path(__file__).with_name("style.css")
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


def mount_page(app: FastAPI, page: gr.Blocks) -> FastAPI:
    """Serves `page` at "/". Call it after the app's own routes are there: the page takes every path that is left."""
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gr.themes.Base(font=SYSTEM_FONTS, font_mono=("ui-monospace", "Consolas", "monospace")),
        css=STYLE.read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,  # byte: the page uploads nothing, and the route cannot be taken away
    )
    return app
