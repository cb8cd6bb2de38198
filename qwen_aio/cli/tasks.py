"""Look at the tasks in prompts/: list them, check them, or see what the model would see."""

from __future__ import annotations

import argparse
import asyncio

from qwen_aio.cli.flags import add_settings_flags, settings_from
from qwen_aio.cli.run import MODEL_SETTINGS
from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import Control, Prompt, Task
from qwen_aio.errors import GoldenMismatch, UnknownTask
from qwen_aio.tasks.lint import LintReport, lint
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `qwen-aio tasks` understands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every task, its labels and its rules")
    add_settings_flags(listing, "prompts_dir")
    check = actions.add_parser("lint", help="count tokens, find mistakes, run the golden cases")
    check.add_argument("name", nargs="*", help="tasks to check [all]")
    add_settings_flags(check, *MODEL_SETTINGS)
    render = actions.add_parser("render", help="print the prompt a text leads to")
    render.add_argument("name", help="a task")
    render.add_argument("--text", required=True, help="the user's text")
    render.add_argument("--feeling", help="the text of a label decided before")
    add_settings_flags(render, "prompts_dir")


def main(arguments: argparse.Namespace) -> int:
    """List, lint or render; the exit status, 1 if lint found a problem."""
    settings = settings_from(arguments)
    tasks = load_tasks(prompts_dir(settings))
    match arguments.action:
        case "list":
            for task in tasks.values():
                print(_told(task))
        case "render":
            task = _named(tasks, arguments.name)
            print(_spelled(PromptTemplate(task).prompt(arguments.text, feeling=arguments.feeling)))
        case "lint":
            chosen = {name: _named(tasks, name) for name in arguments.name or tasks}
            return asyncio.run(_lint(settings, chosen))
    return 0


def _named(tasks: dict[str, Task], name: str) -> Task:
    if name not in tasks:
        raise UnknownTask(f"unknown task {name!r}; known: {', '.join(sorted(tasks))}")
    return tasks[name]


def _told(task: Task) -> str:
    labels = ", ".join(f"{label.emoji} {label.name} = {label.text}" for label in task.labels)
    rules = "".join(f"\n    {rule.priority:3d} {rule.name}" for rule in task.rules)
    return f"{task.name} ({task.kind}, {task.hash}){f': {labels}' if labels else ''}{rules}"


def _spelled(prompt: Prompt) -> str:
    segments = (*prompt.head, *(segment for turn in prompt.turns for segment in turn), *prompt.body)
    return "".join(segment.token if isinstance(segment, Control) else segment.text for segment in segments)


async def _lint(settings: Settings, chosen: dict[str, Task]) -> int:
    from qwen_aio.cli.loading import choose_model, loaded, prepare_process, stated_threads, told_model
    from qwen_aio.cli.memory_need import log_memory
    from qwen_aio.engine.tokenizer import Tokenizer

    threads = prepare_process(stated_threads(settings))
    model = choose_model(settings)
    print(told_model(model))
    log_memory(settings, model)
    tokenizer = Tokenizer.load(model.path)
    reports = [lint(task, tokenizer) for task in chosen.values()]
    for report in reports:
        _print_report(report)
    try:
        async with loaded(settings, chosen, model, threads=threads) as ready:
            golden = ready.golden
            print(ready.verdict.told)
    except GoldenMismatch as exc:
        print(f"golden cases: {exc.message}")
        return 1
    for name, outcome in golden.items():
        print(f"golden cases of {name}: {outcome}")
    return 1 if any(report.problems for report in reports) else 0


def _print_report(report: LintReport) -> None:
    print(f"{report.task}: {report.prefix_tokens} fixed tokens (computed once), {report.tail_tokens} after the text")
    for problem in report.problems:
        print(f"  problem: {problem}")
    for hint in report.hints:
        print(f"  hint: {hint}")
