"""The evaluation as a page of its own, to be opened without a network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qwen_aio.evaluation.evaluation import Evaluation
from qwen_aio.evaluation.threshold import coverage
from qwen_aio.evaluation.words import WORDS


def html(found: Evaluation, *, language: str) -> str:
    """The page; texts of the rows are escaped. `language`: one of WORDS."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        found=found,
        metrics=found.metrics,
        coverage=coverage(found.rows),
        words=WORDS[language],
        language="zh-CN" if language == "zh" else "en",
    )
