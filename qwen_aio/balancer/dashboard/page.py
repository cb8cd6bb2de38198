"""The first paint of the page, complete without a script. Everything passes Jinja's escaping."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from qwen_aio.balancer.dashboard.cells import NUM_BARS, event_cells, request_cells, snapshot_cells
from qwen_aio.balancer.dashboard.strings import DashboardStrings
from qwen_aio.balancer.snapshot import Snapshot
from qwen_aio.balancer.stats import StatsHistory

MAX_ROWS = 50  # of each log; the script shows as many, and finds the others
SCRIPT_STRINGS = (
    *("stale", "requests", "waiting", "found", "not_found"),
    *("confirm", "refused", "refused_origin", "refused_key", "unreachable"),
)


class Page:
    """Reads the template once."""

    def __init__(self) -> None:
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["clock"] = _clock_time
        self._template = environment.get_template("page.html.j2")

    def render(self, snapshot: Snapshot, history: StatsHistory, strings: DashboardStrings, *, key: str = "") -> str:
        """The whole page, newest rows first. `key` is the name of the visitor's, if one is needed."""
        return self._template.render(
            strings=strings,
            key=key,
            script_strings={name: getattr(strings, name) for name in SCRIPT_STRINGS},
            num_bars=NUM_BARS,
            max_rows=MAX_ROWS,
            **snapshot_cells(snapshot, strings),
            requests=[request_cells(row, strings) for row in history.requests[: -MAX_ROWS - 1 : -1]],
            events=[event_cells(row, strings) for row in history.events[: -MAX_ROWS - 1 : -1]],
        )


def _clock_time(unix_s: float) -> str:
    """Month, day and time where the balancer runs; the script shows the visitor's own."""
    return datetime.fromtimestamp(unix_s).strftime("%m-%d %H:%M:%S")
