"""The page as the server paints it: complete without a script. Everything passes Jinja's escaping."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from qwen_aio.balancer.dashboard.cells import NUM_BARS, event_cells, request_cells, summary_cells, worker_cells
from qwen_aio.balancer.dashboard.strings import STRINGS
from qwen_aio.balancer.snapshot import Snapshot
from qwen_aio.balancer.stats import StatsHistory
from qwen_aio.language import Language

MAX_ROWS = 50  # of each log; the script shows as many, and finds the others


class Page:
    """Reads the template once."""

    def __init__(self) -> None:
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self._template = environment.get_template("page.html.j2")

    def render(self, snapshot: Snapshot, history: StatsHistory, language: Language) -> str:
        """The whole page, newest rows first."""
        strings = STRINGS[language]
        return self._template.render(
            strings=strings,
            words=asdict(strings),
            num_bars=NUM_BARS,
            max_rows=MAX_ROWS,
            summary=summary_cells(snapshot, strings),
            workers=[worker_cells(row, strings) for row in snapshot.workers],
            requests=[request_cells(row, strings) for row in history.requests[: -MAX_ROWS - 1 : -1]],
            events=[event_cells(row, strings) for row in history.events[: -MAX_ROWS - 1 : -1]],
        )
