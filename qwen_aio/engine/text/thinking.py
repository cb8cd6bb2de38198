"""Models that may think before they answer: an empty thought, as their chat templates write it, tells them not to.

The same tokens are in tokenizers of models that were trained without thoughts. Their chat templates know no
empty one, and they are left alone; without a template, the tokens decide.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from qwen_aio.core import Control, Segments, Text
from qwen_aio.engine.config import read_config
from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

THINK, END_OF_THOUGHT = "<think>", "</think>"
EMPTY_THOUGHT: Segments = (Control(THINK), Text("\n\n"), Control(END_OF_THOUGHT), Text("\n\n"))


def answer_opening(chat_template: str | None, *, controls: Container[str]) -> Segments:
    """What every answer of a model with these control tokens begins with."""
    may_think = THINK in controls and END_OF_THOUGHT in controls
    return EMPTY_THOUGHT if may_think and (chat_template is None or _has_empty_thought(chat_template)) else ()


def read_chat_template(folder: Path) -> str | None:
    """The chat template in a model's folder, not rendered. Raises InvalidModel."""
    alone, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if alone.exists():
            return read_text(alone)
        return _default_of(read_config(config).get("chat_template")) if config.exists() else None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidModel(f"{folder}: the chat template is damaged: {exc!r}") from exc


def _has_empty_thought(chat_template: str) -> bool:
    return f"{THINK}\n\n{END_OF_THOUGHT}" in chat_template.replace("\\n", "\n")


def _default_of(stated: Any) -> str | None:
    """Some tokenizers have several templates, by name."""
    if isinstance(stated, list):
        return next((str(each["template"]) for each in stated if each["name"] == "default"), None)
    return None if stated is None else str(stated)
