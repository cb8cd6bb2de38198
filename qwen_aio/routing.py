"""Routing: the task that serves a request, and the plan for it. Pure functions over rules.

On the floor, because a balancer plans before it chooses a worker, and a worker plans direct
requests.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from qwen_aio.core import FixedAnswer, Message, Plan, Request, Route, Rule, Task
from qwen_aio.errors import InvalidRequest, UnknownTask
from qwen_aio.language import language_of
from qwen_aio.result import Safety
from qwen_aio.safeguards import NUM_EARLIER_TURNS

DEFAULT_TASK = "chat"
# A CJK character is a word of its own; elsewhere a run of letters and digits is one.
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff]|[^\W_\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff]+")
# A hostile megabyte must not make patterns expensive. Rules with a reply match the whole text.
MAX_MATCHED_CHARS = 4000


def plan(request: Request, tasks: Mapping[str, Task]) -> Plan:
    """The decision and the answer that `request` leads to. Raises UnknownTask, InvalidRequest."""
    danger = find_danger(checked_texts(request.text, request.history), tasks)
    route = danger.route if danger and request.mode == "auto" else choose_route(request.mode, request.text, tasks)
    main = tasks[route.task]
    companion = tasks.get(main.companion) if request.reply and main.companion else None
    if request.decide is not None:
        companion = _decides(request.decide, main, tasks)
    decision, answer = (main, companion) if main.kind == "decision" else (companion, main)
    fixed = (danger.answer if danger else fixed_answer(request.text, tasks)) if answer else None
    return Plan(route=route.reason, main=main, decision=decision, answer=answer, fixed=fixed)


def _decides(name: str, main: Task, tasks: Mapping[str, Task]) -> Task:
    """The decision task `name`, which goes before an answer of `main`. Raises UnknownTask, InvalidRequest."""
    decisions = sorted(task.name for task in tasks.values() if task.kind == "decision")
    if name not in decisions:
        raise UnknownTask(f"no decision task {name!r}; known: {', '.join(decisions)}", param="decide")
    if main.kind == "decision":
        raise InvalidRequest(f"{main.name} decides already; decide goes with an answer", param="decide")
    return tasks[name]


@dataclass(frozen=True)
class Danger:
    """What the word rule of the safety task found."""

    route: Route  # in mode auto: somebody in danger gets an answer, not a label
    answer: FixedAnswer


def checked_texts(text: str, history: Sequence[Message]) -> list[str]:
    """The last user turns and then the message itself, which safety is decided over."""
    turns = [message.content for message in history if message.role == "user"]
    return [*turns[-NUM_EARLIER_TURNS:], text]


def find_danger(texts: Sequence[str], tasks: Mapping[str, Task]) -> Danger | None:
    """What the word rule of the safety task, if there is one, finds anywhere in `texts`."""
    task = next((task for task in tasks.values() if task.safety), None)
    if task is None or task.safety is None:
        return None
    plain = [unicodedata.normalize("NFKC", text) for text in texts]
    for label, patterns in task.safety.patterns.items():
        for found in (re.search(pattern, text, re.IGNORECASE) for pattern in patterns for text in plain):
            if found:
                reply = task.safety.replies[label][language_of(texts[-1]) or "en"]
                route = Route(task.companion or default_task(tasks), f"rule {task.name}.{label}: {found[0][:40]}")
                return Danger(route, FixedAnswer(reply, Safety(label, None, "words")))
    return None


def choose_route(mode: str, text: str, tasks: Mapping[str, Task]) -> Route:
    """The task for `text`. Raises UnknownTask for a mode that is neither "auto" nor a task."""
    if mode != "auto":
        if mode not in tasks:
            raise UnknownTask(f"unknown task {mode!r}; known: auto, {', '.join(sorted(tasks))}", param="mode")
        return Route(mode, f"mode {mode}")
    for rule in _by_priority(tasks):
        why = match(rule, text)
        if why is not None:
            return Route(rule.task, f"rule {rule.task}.{rule.name}: {why}")
    default = default_task(tasks)
    return Route(default, f"default {default}")


def default_task(tasks: Mapping[str, Task]) -> str:
    """The task for what no rule claims."""
    return DEFAULT_TASK if DEFAULT_TASK in tasks else min(tasks)


def fixed_answer(text: str, tasks: Mapping[str, Task]) -> FixedAnswer | None:
    """The reply of the first matching rule that has one, of any task; None if there is none."""
    for rule in _by_priority(tasks):
        if rule.reply is not None and match(rule, text) is not None:
            return FixedAnswer(rule.reply)
    return None


def match(rule: Rule, text: str) -> str | None:
    """The part of `text` that matches `rule` (see Rule), or None."""
    if not _within(len(text), rule.min_chars, rule.max_chars):
        return None
    num_words = count_words(text, at_most=max(rule.min_words or 0, rule.max_words or 0) + 1)
    if not _within(num_words, rule.min_words, rule.max_words):
        return None
    if not rule.words and not rule.patterns:
        return f"{len(text)} characters"
    start = text if rule.reply else text[:MAX_MATCHED_CHARS]
    for word in words_in(start, rule.words):
        return word
    for pattern in rule.patterns:
        if found := re.search(pattern, start, re.IGNORECASE):
            return found.group(0)[:40]
    return None


def words_in(text: str, words: Iterable[str]) -> Iterator[str]:
    """The `words` that occur in `text`, in their order: plain substrings, compared without case."""
    folded = text.casefold()
    return (word for word in words if word.casefold() in folded)


def count_words(text: str, *, at_most: int) -> int:
    """Words, where each CJK character counts as one; counting ends at `at_most`."""
    return sum(1 for _ in islice(_WORD.finditer(text), at_most))


def _by_priority(tasks: Mapping[str, Task]) -> list[Rule]:
    rules = (rule for task in tasks.values() for rule in task.rules)
    return sorted(rules, key=lambda rule: (rule.priority, rule.task, rule.name))


def _within(count: int, least: int | None, most: int | None) -> bool:
    return (least is None or count >= least) and (most is None or count <= most)
