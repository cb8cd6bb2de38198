"""Ask once from the command line: the merged line, what moved the decision, the time; or the whole result as JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys

from qwen_aio.cli.services import MODEL_SETTINGS, SERVER_SETTINGS, URL_HELP, service_at, service_here
from qwen_aio.config import Settings
from qwen_aio.core import Request, SamplingWish
from qwen_aio.result import Result
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.visible import check_visible
from qwen_aio.wire import result_to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="the text; - reads it from standard input")
    parser.add_argument("--mode", default="auto", help="auto or a task's name [auto]")
    parser.add_argument("--reply", action="store_true", help="decision and answer together")
    parser.add_argument("--max-tokens", type=int, help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument("--url", help=URL_HELP)
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    add_settings_flags(parser, *MODEL_SETTINGS, *SERVER_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Ask and print; the exit status."""
    settings = settings_from(arguments)
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    check_visible(text, param="text")
    wish = SamplingWish(max_tokens=arguments.max_tokens, seed=arguments.seed)
    request = Request(text, mode=arguments.mode, reply=arguments.reply, sampling=wish, explain=True, request_id="cli")
    result = asyncio.run(_ask(settings, arguments.url, request))
    reason = result.decision.reason if result.decision else None
    lines = [result.merged_line, reason, f"{result.total_ms / 1000:.2f} s ({result.route})"]
    print(result_to_json(result) if arguments.json else "\n".join(filter(None, lines)))
    return 0


async def _ask(settings: Settings, url: str | None, request: Request) -> Result:
    async with service_at(url, settings) if url else service_here(settings, named=request) as service:
        return await service.run(request)
