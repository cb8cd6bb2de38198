"""Which task serves a message when the mode is auto: one pure function over rules that are data.

On the floor, because the balancer asks before it chooses a worker and a worker asks when it is called directly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from qwen_aio.core import Route, Rule, Task
from qwen_aio.errors import UnknownTask

DEFAULT_TASK = "chat"
# A CJK character is a word of its own; elsewhere a run of letters and digits is one.
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff]|[^\W_\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff]+")
# Rules are matched on this many characters: patterns stay cheap on a hostile megabyte, lengths still count in full.
MAX_MATCHED_CHARS = 4000


def choose_route(mode: str, text: str, tasks: Mapping[str, Task]) -> Route:
    """The task for `text`. Raises UnknownTask for a mode that is neither "auto" nor a task.

    A rule with a fixed reply also holds when its task was named by the caller.
    """
    if mode != "auto":
        if mode not in tasks:
            raise UnknownTask(f"unknown task {mode!r}; known: auto, {', '.join(sorted(tasks))}", param="mode")
        return Route(mode, f"mode {mode}")
    for rule in _by_priority(rule for task in tasks.values() for rule in task.rules):
        why = match(rule, text)
        if why is not None:
            return Route(rule.task, f"rule {rule.task}.{rule.name}: {why}", rule)
    default = DEFAULT_TASK if DEFAULT_TASK in tasks else min(tasks)
    return Route(default, f"default {default}")


def fixed_reply(task: Task, text: str) -> Rule | None:
    """The first rule of `task` that answers `text` by itself, if any."""
    rules = _by_priority(rule for rule in task.rules if rule.reply is not None)
    return next((rule for rule in rules if match(rule, text) is not None), None)


def match(rule: Rule, text: str) -> str | None:
    """What in `text` fulfils `rule`, or None: all limits must hold, and one word or pattern if any is listed."""
    if not (_within(len(text), rule.min_chars, rule.max_chars) and _within_words(rule, text)):
        return None
    if not rule.words and not rule.patterns:
        return f"{len(text)} characters"
    start = text[:MAX_MATCHED_CHARS]
    folded = start.casefold()
    for word in rule.words:
        if word.casefold() in folded:
            return word
    for pattern in rule.patterns:
        found = _compiled(pattern).search(start)
        if found:
            return found.group(0)[:40]
    return None


def count_words(text: str) -> int:
    """Words, where each CJK character counts as one."""
    return sum(1 for _ in _WORD.finditer(text))


def _by_priority(rules: Iterable[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda rule: (rule.priority, rule.task, rule.name))


def _within(count: int, least: int | None, most: int | None) -> bool:
    return (least is None or count >= least) and (most is None or count <= most)


def _within_words(rule: Rule, text: str) -> bool:
    if rule.min_words is None and rule.max_words is None:
        return True
    return _within(count_words(text), rule.min_words, rule.max_words)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
