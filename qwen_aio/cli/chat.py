"""Chat in this terminal: the answer as it comes, the decision below each message.

qwen-aio chat                                  with a model that is loaded here
qwen-aio chat --url http://127.0.0.1:8000      with a server
echo hello | qwen-aio chat                     a message a line; plain text where no terminal shows it

/new begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer. Lines that are pasted together are one message.
"""

from __future__ import annotations

import argparse
import asyncio
import locale
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, nullcontext, suppress
from functools import partial
from typing import Any

from qwen_aio.cli.services import MODEL_SETTINGS, SERVER_SETTINGS, URL_HELP, service_at, service_here
from qwen_aio.cli.terminal_chat import Connect, Screen, TerminalChat
from qwen_aio.config import Settings
from qwen_aio.core import Request
from qwen_aio.errors import QwenAioError
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.language import operators_language
from qwen_aio.startup.log import one_line
from qwen_aio.startup.messages import say

Run = Callable[[Coroutine[Any, Any, None]], None]  # until its end; Ctrl-C cancels it and raises KeyboardInterrupt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mode", default="auto", help="auto or a task's name [auto]")
    parser.add_argument("--url", help=URL_HELP)
    add_settings_flags(parser, *MODEL_SETTINGS, *SERVER_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Talk until the input ends; the exit status: 1 if a message was not answered."""
    settings = settings_from(arguments)
    is_watched = sys.stdout.isatty()
    screen = Screen(sys.stdout, can_dim=is_watched and os.environ.get("TERM") != "dumb" and sys.platform != "win32")
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        try:
            connect = runner.run(_connect(stack, settings, arguments))
            chat = TerminalChat(connect, screen, mode=arguments.mode, language=operators_language())
            is_fine = _talk(chat, runner.run, is_person=is_watched and sys.stdin.isatty())
        finally:
            runner.run(stack.aclose())
    return 0 if is_fine else 1


async def _connect(stack: AsyncExitStack, settings: Settings, arguments: argparse.Namespace) -> Connect:
    """How a message reaches what answers it. A model is loaded once, and ends with `stack`."""
    if arguments.url:
        return partial(service_at, arguments.url, settings)
    named = Request("-", mode=arguments.mode)
    here = await stack.enter_async_context(service_here(settings, named=named))
    return lambda: nullcontext(here)


def _talk(chat: TerminalChat, run: Run, *, is_person: bool) -> bool:
    """Until the input ends; whether every message was answered. A person stops an answer and goes on."""
    is_fine = True
    if is_person:
        _edit_lines()
        chat.greet()
    for text in _messages(is_person=is_person):
        if text == "/new":
            chat.forget()
            continue
        try:
            run(chat.say(text))
        except QwenAioError as exc:
            say(one_line(exc.message), file=sys.stderr)
            is_fine = False
        except KeyboardInterrupt:
            if not is_person:
                raise
            chat.stopped()
    return is_fine


def _edit_lines() -> None:
    """Arrow keys, earlier messages, and pasted lines as one message."""
    if sys.platform == "win32":  # its console does what it can by itself
        return
    if locale.nl_langinfo(locale.CODESET) != "UTF-8":
        os.environ["LC_ALL"] = "C.UTF-8"  # else readline takes the bytes of a Chinese letter for commands
    with suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")


def _messages(*, is_person: bool) -> Iterator[str]:
    """What is typed, until Ctrl-D or /quit. Ctrl-C clears a person's line, as in a shell."""
    while True:
        try:
            text = input("> " if is_person else "").strip()
        except EOFError:
            if is_person:
                print()
            return
        except KeyboardInterrupt:
            if not is_person:
                raise
            print()
            continue
        if text == "/quit":
            return
        if text:
            yield text
