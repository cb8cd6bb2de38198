"""`qwen-aio tasks draft`: a decision task from labelled examples, with the prompt that was measured to be best."""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from pathlib import Path

from qwen_aio.bulk.asking import Asked
from qwen_aio.cli.labelled_rows import FILE_HELP, add_column_arguments, table_with
from qwen_aio.cli.services import MODEL_SETTINGS, service_here
from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import Request
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.drafting import NO_EXAMPLES, choice_lines, choose, drafts, golden_texts, material
from qwen_aio.evaluation.judging import Judge, Source
from qwen_aio.startup.flags import add_settings_flags
from qwen_aio.startup.messages import say
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.task_file import NAME


def add_draft_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the new task: small letters, digits and underscores")
    parser.add_argument("--examples", type=Path, required=True, metavar="FILE", help=FILE_HELP)
    add_column_arguments(parser)
    add_settings_flags(parser, *MODEL_SETTINGS)


def draft(arguments: argparse.Namespace, settings: Settings) -> int:
    """Measure, print, write; the exit status."""
    if not re.fullmatch(NAME, arguments.name) or arguments.name == "auto":
        raise InvalidSettings(f"{arguments.name!r}: a task is named by small letters, digits and underscores")
    folder = prompts_dir(settings) / arguments.name
    if folder.exists():
        raise InvalidSettings(f"{folder} exists; choose another name, or delete it")
    return asyncio.run(_draft(arguments, settings, folder))


async def _draft(arguments: argparse.Namespace, settings: Settings, folder: Path) -> int:
    columns = (arguments.text_column, arguments.label_column)
    table = table_with(arguments.examples, *columns)
    found = material(table, *columns)
    made = drafts(arguments.name, found)
    names = {prompt: f"{arguments.name[:28]}_{number}" for number, prompt in enumerate(made)}
    try:
        with tempfile.TemporaryDirectory() as home:
            for prompt, each in made.items():
                each.write(Path(home) / names[prompt])
            tasks = load_tasks(Path(home))
    except OSError as exc:
        raise InvalidSettings(f"the folder for temporary files cannot be written: {exc.strerror}") from exc
    source = Source(table, *columns, ())
    judged_on = frozenset(row.number for row in found.judged_on)
    named = Request("-", mode=names[NO_EXAMPLES])
    async with service_here(settings, named=named, more=lambda _: tasks) as asked:
        judged = {}
        for prompt, name in names.items():
            judge = await Judge.of(asked, name)
            judged[prompt], _ = await source.judged(judge, title=prompt, only=judged_on)
        choice = choose(found, judged)
        print("\n".join(choice_lines(found, choice)))
        for prompt in dict.fromkeys((NO_EXAMPLES, choice.best)):
            say(f"{prompt}: {await _cost(asked, names[prompt], found.pool[0].text)}")
    try:
        made[choice.best].write(folder, golden_texts(found, judged[choice.best]))
    except OSError as exc:
        raise InvalidSettings(f"{folder} cannot be written: {exc.strerror}") from exc
    say(f"written to {folder}; a server has it from its next start on")
    return 0


async def _cost(asked: Asked, task: str, text: str) -> str:
    """What a request costs: the examples stand in the prompt's head, which is kept."""
    decision = (await asked.run(Request(text, mode=task))).decision
    assert decision is not None
    usage = decision.usage
    computed = usage.prompt_tokens - usage.cached_tokens
    return f"{usage.prompt_tokens} tokens of prompt, of which a request computes {computed}"
