"""Task + request -> Prompt: the Jinja template rendered block by block, put into ChatML by code.

Templates run in a sandbox, and an undefined variable is an error. Knows no token ids and
no lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jinja2 import DictLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_aio.core import Message, Prompt, Task
from qwen_aio.errors import InvalidTask
from qwen_aio.routing import words_in
from qwen_aio.tasks.chatml import answer_start, exchanges, turn
from qwen_aio.tasks.normalise import Calmed, calm, narrow

BLOCKS = ("system", "user", "answer")
# They differ between requests: only the user block has them.
USER_VARIABLES = ("text", "feeling", "focus_words", "emphasis")
# Errors that an expression in a template can raise, besides Jinja's own.
_TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


class PromptTemplate:
    """One task's template, compiled. Immutable after construction, safe to share."""

    def __init__(self, task: Task) -> None:
        """Raises InvalidTask if it does not compile, or lacks a block or a variable."""
        self._task = task
        self._template = _compile(task)
        self.head = turn("system", self._render("system"))  # the same for every request
        self._answer = self._render("answer")
        self._render("user", text="", emphasis=True, feeling=None, focus_words=task.focus_words)

    def prompt(self, text: str, *, history: Sequence[Message] = (), feeling: str | None = None) -> Prompt:
        """The prompt for `text`, normalised, after `history`; `feeling` is the decided label's text."""
        # Only the focus words in the text: the others must not influence the model.
        plain = calm(text) if self._task.kind == "decision" else Calmed(narrow(text), emphasis=False)
        words = tuple(words_in(plain.text, self._task.focus_words))
        block = self._render("user", **plain._asdict(), feeling=feeling, focus_words=words)
        body = (*turn("user", block, can_cut=True), *answer_start(self._answer))
        return Prompt(head=self.head, turns=exchanges(_narrowed(history)), body=body)

    def _render(self, block: str, **variables: object) -> str:
        """`block` with the labels, which every block knows, and `variables`."""
        context = self._template.new_context({"labels": [label.text for label in self._task.labels], **variables})
        try:
            return "".join(self._template.blocks[block](context))
        except _TEMPLATE_FAILURES as exc:
            known = "" if block == "user" else f" ({', '.join(USER_VARIABLES)} are known in the block user alone)"
            raise InvalidTask(f"task {self._task.name}: prompt.j2, block {block}: {exc}{known}") from exc


def _compile(task: Task) -> Template:
    # An empty loader: a template cannot read other files.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, loader=DictLoader({}))
    try:
        template = environment.from_string(task.template)
    except TemplateError as exc:
        raise InvalidTask(f"task {task.name}: prompt.j2: {exc}") from exc
    missing = [block for block in BLOCKS if block not in template.blocks]
    if missing:
        raise InvalidTask(f"task {task.name}: prompt.j2 lacks the block {', '.join(missing)}")
    return template


def _narrowed(history: Sequence[Message]) -> list[Message]:
    """`history` with its user messages normalised."""
    return [replace(it, content=narrow(it.content)) if it.role == "user" else it for it in history]
