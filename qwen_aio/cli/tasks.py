"""The tasks in prompts/: list them, check them, draft a new one, or see what the model would see."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from itertools import groupby

from qwen_aio.cli import draft
from qwen_aio.cli.services import MODEL_SETTINGS
from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import Control, Prompt, Task
from qwen_aio.errors import GoldenMismatch, InvalidSettings, UnknownTask
from qwen_aio.result import Decision
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.messages import say, translated
from qwen_aio.tasks.lint import LintReport, lint
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.engine import EngineClient
from qwen_aio.worker.focus import SENTENCES, FocusEffect, focus_effects
from qwen_aio.worker.golden import examine, remedy
from qwen_aio.worker.golden_book import GoldenBook


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every task, its labels and its rules")
    add_settings_flags(listing, "prompts_dir")
    check = actions.add_parser("lint", help="count tokens, find mistakes, run the golden cases")
    check.add_argument("name", nargs="*", help="tasks to check [all]")
    check.add_argument("--accept", action="store_true", help="accept the current answers of the golden cases")
    add_settings_flags(check, *MODEL_SETTINGS)
    drafting = actions.add_parser("draft", help="write a new decision task from labelled examples, and measure it")
    draft.add_draft_arguments(drafting)
    render = actions.add_parser("render", help="print the prompt a text leads to")
    render.add_argument("name", help="a task")
    render.add_argument("--text", required=True, help="the user's text")
    render.add_argument("--feeling", help="the text of a label decided before")
    add_settings_flags(render, "prompts_dir")


def main(arguments: argparse.Namespace) -> int:
    """The exit status: 1 if lint found a problem."""
    settings = settings_from(arguments)
    tasks = load_tasks(prompts_dir(settings))
    match arguments.action:
        case "list":
            for task in tasks.values():
                print(_describe(task))
                if task.safety:
                    say("    checks every message before it is answered")
        case "render":
            task = _named(tasks, arguments.name)
            print(_spelled(PromptTemplate(task).prompt(arguments.text, feeling=arguments.feeling)))
        case "draft":
            return draft.draft(arguments, settings)
        case "lint":
            chosen = {name: _named(tasks, name) for name in arguments.name or tasks}
            if arguments.accept and settings.golden == "off":
                raise InvalidSettings("--accept records what the golden cases give: they cannot be off", param="golden")
            return asyncio.run(_lint(settings, chosen, accepts=arguments.accept))
    return 0


def _named(tasks: dict[str, Task], name: str) -> Task:
    if name not in tasks:
        raise UnknownTask(f"unknown task {name!r}; known: {', '.join(sorted(tasks))}")
    return tasks[name]


def _describe(task: Task) -> str:
    labels = ", ".join(f"{label.emoji} {label.name} = {label.text}" for label in task.labels)
    rules = "".join(f"\n    {rule.priority:3d} {rule.name}" for rule in task.rules)
    return f"{task.name} ({task.kind}, {task.hash}){f': {labels}' if labels else ''}{rules}"


def _spelled(prompt: Prompt) -> str:
    segments = (*prompt.head, *(segment for turn in prompt.turns for segment in turn), *prompt.body)
    return "".join(segment.token if isinstance(segment, Control) else segment.text for segment in segments)


async def _lint(settings: Settings, chosen: dict[str, Task], *, accepts: bool) -> int:
    from qwen_aio.startup.egress import egress_guard
    from qwen_aio.startup.environment import stated_threads
    from qwen_aio.worker.loading import (
        choose_model,
        describe_model,
        encoder_of,
        golden_book,
        loaded_engine,
        prepare_process,
    )
    from qwen_aio.worker.memory_need import log_memory, sized

    egress_guard(settings)
    threads = prepare_process(stated_threads(settings))
    model = choose_model(settings)
    say(describe_model(model))
    settings = sized(settings, model)
    log_memory(settings, model)
    encoder = encoder_of(settings, model)
    reports = [lint(task, encoder) for task in chosen.values()]
    for report in reports:
        _print_report(report)
    is_fine = not any(report.problems for report in reports)
    if settings.golden == "off":
        say("golden cases: off")
        return 0 if is_fine else 1
    async with loaded_engine(settings.model_copy(update={"golden": "off"}), chosen, model, threads=threads) as ready:
        say(str(ready.precision_record))
        book = golden_book(settings, model, ready.sha, ready.precision_record.precision, kernel=ready.kernel)
        for task in chosen.values():
            is_fine &= await _check_golden(ready.engine, task, book, accepts=accepts) or settings.golden == "warn"
            _print_focus(await focus_effects(ready.engine, task))
    return 0 if is_fine else 1


async def _check_golden(engine: EngineClient, task: Task, book: GoldenBook, *, accepts: bool) -> bool:
    """Run the golden cases and print every one that differs; whether they hold now."""
    try:
        outcome = await examine(engine, task, book)
    except GoldenMismatch as exc:
        say(f"golden cases of {task.name}: {exc.message}")
        return False
    say(f"golden cases of {task.name}: {outcome.head}")
    for line in outcome.differing:
        say(f"  {translated(line)}")
    if outcome.cause is not None and not (accepts and outcome.cause != "shipped"):
        say(f"  {translated(remedy(task, outcome))}")
        return False
    book.keep(task, outcome.answers)
    if outcome.cause is not None:
        say("  accepted: this is what is right from now on")
    return True


def _print_focus(effects: Sequence[FocusEffect]) -> None:
    """A line for each word, its sentences side by side, and below it the labels that change."""
    if not effects:
        return
    forms = "  ".join(f"[{number}] {form.format('...')}" for number, form in enumerate(SENTENCES, 1))
    say(f"  focus words change nothing in texts without them; how far they move a label's probability in\n  {forms}")
    for word, of_word in groupby(effects, key=lambda effect: effect.word):
        listed = list(of_word)
        print(f"    {word}:", *(f"[{number}] {effect.shift:.2f}" for number, effect in enumerate(listed, 1)), sep="  ")
        for effect in listed:
            if effect.is_flip:
                say(f"      flips {effect.sentence}  {_label(effect.without)} -> {_label(effect.with_it)}")


def _label(decision: Decision) -> str:
    best = f"{decision.best_label} {decision.probability:.2f}"
    return f"{decision.label} (unsure: {best})" if decision.abstained else best


def _print_report(report: LintReport) -> None:
    say(f"{report.task}: {report.prefix_tokens} fixed tokens (computed once), {report.tail_tokens} after the text")
    for problem in report.problems:
        say(f"  problem: {problem}")
    for hint in report.hints:
        say(f"  hint: {hint}")
