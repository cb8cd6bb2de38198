"""The files of a new decision task, written from labels and examples: task.toml, prompt.j2 and golden.jsonl."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from qwen_aio.language import Language

EMOJIS = ("🔵", "🟠", "🟢", "🟣", "🟡", "🔴", "🟤", "⚪", "⚫")


@dataclass(frozen=True)
class Example:
    """A text and the text of its label."""

    text: str
    label: str


@dataclass(frozen=True)
class Draft:
    """A decision task to be written; `labels` are their texts."""

    name: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    language: Language

    def write(self, folder: Path, golden: Sequence[str] = ()) -> None:
        """Make `folder`; task.toml comes last, so that half a task is none. Raises OSError, and leaves nothing then."""
        folder.mkdir(parents=True)
        try:
            self._write_files(folder, golden)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _write_files(self, folder: Path, golden: Sequence[str]) -> None:
        (folder / "prompt.j2").write_text(self._template(), encoding="utf-8")
        cases = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in golden)
        if cases:
            (folder / "golden.jsonl").write_text(cases, encoding="utf-8")
        (folder / "task.toml").write_text(self._task_file(), encoding="utf-8")

    def _task_file(self) -> str:
        named = zip(label_names(self.labels), self.labels, strict=True)
        labels = "".join(
            f'    {{ name = "{name}", text = {_toml(text)}, emoji = "{EMOJIS[number % len(EMOJIS)]}" }},\n'
            for number, (name, text) in enumerate(named)
        )
        title = _toml(self.name.replace("_", " ").capitalize())
        return f'kind = "decision"\ntitle = {{ en = {title}, zh = {title} }}\n\nlabels = [\n{labels}]\n'

    def _template(self) -> str:
        listed = ("、" if self.language == "zh" else ", ").join(self.labels)
        ask, shown, text, label, answer = _WORDS[self.language]
        lines = [ask.format(_literal(listed))]
        if self.examples:
            lines.append(shown)
        lines += [f"{text}{_literal(each.text)}\n{label}{_literal(each.label)}" for each in self.examples]
        system = "\n".join(lines)
        return (
            f"{{% block system %}}{system}{{% endblock %}}\n"
            "{% block user %}{{ text }}{% endblock %}\n"
            f"{{% block answer %}}{answer}{{% endblock %}}\n"
        )


_WORDS = {
    "zh": ("判断这段文字属于哪一类,只答其中一个:{}。", "例子:", "文字:", "类别:", "【类别】:"),
    "en": (
        "Decide which class the text belongs to. Answer with one of: {}.",
        *("Examples:", "Text: ", "Class: ", "[Class]:"),
    ),
}


def label_names(texts: Sequence[str]) -> list[str]:
    """A name for programs for each label: its text where that can be one, else label_1, label_2, ..."""
    names: list[str] = []
    for number, text in enumerate(texts, 1):
        own = [re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_")[:32]] if text.isascii() else []
        possible = chain(own, [f"label_{number}"], (f"label_{number}_{again}" for again in count(1)))
        names.append(next(name for name in possible if re.match(r"[a-z]", name) and name not in names))
    return names


def _toml(text: str) -> str:
    """A TOML string."""
    letters = (each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in text)
    return f'"{"".join(letters)}"'


def _literal(text: str) -> str:
    """`text` in a template: as it stands, or as a string where it might mean something to Jinja."""
    shown = " ".join(text.split())
    return f"{{{{ {json.dumps(shown, ensure_ascii=False)} }}}}" if "{" in shown else shown
