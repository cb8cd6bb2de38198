"""Check this machine and installation for a start with these settings: what is wrong, and what to do about it.

qwen-aio doctor                                for qwen-aio serve, or python app.py
qwen-aio doctor --workers 4 --port 8080        for qwen-aio cluster with the same flags

Loads no model; compares its files with their hashes, where it has any. The exit status is 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from qwen_aio import __version__
from qwen_aio.config import Settings, settings_of
from qwen_aio.doctor.examination import Checks, checks_of_machine, checks_of_start, findings_of
from qwen_aio.doctor.finding import Finding, Mark
from qwen_aio.doctor.start import Start
from qwen_aio.errors import SetupError
from qwen_aio.startup.environment import stated_threads
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.log import one_line
from qwen_aio.startup.messages import line_of, say, translated

# With the space behind them: a word alone could be a name in what is found, and has no translation.
MARKS: Mapping[Mark, str] = {"ok": "ok       ", "note": "note     ", "problem": "problem  "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--workers", default=argparse.SUPPRESS, metavar="N", help="check for a cluster of so many")
    parser.add_argument("--port", default=argparse.SUPPRESS, help="port of the page [7860]")
    first = settings_of("cluster")
    others = (name for name in Settings.model_fields if name not in (*first, "workers", "port", "id"))
    add_settings_flags(parser, *first, *others)


def main(arguments: argparse.Namespace) -> int:
    """The exit status: 1 if there is a problem."""
    checks = _checks(arguments)
    found = findings_of(checks)
    marks = _print_json(found) if arguments.json else _print_lines(found, width=max(map(len, checks)))
    return 1 if marks["problem"] else 0


def _checks(arguments: argparse.Namespace) -> Checks:
    """All; without valid settings, those of the machine alone."""
    try:
        settings = settings_from(arguments)
        settings = settings.model_copy(update={"threads": stated_threads(settings)})
        is_cluster = "workers" in arguments or _is_number(settings.workers)
        return {**checks_of_machine(), **checks_of_start(Start.of(settings, is_cluster=is_cluster))}
    except SetupError as exc:
        problem = Finding("problem", exc.message)
        return {**checks_of_machine(), "settings": lambda: [problem]}


def _is_number(workers: tuple[str, ...]) -> bool:
    """Of workers, as a cluster takes it; a balancer's setting of that name has ids or addresses."""
    return len(workers) == 1 and workers[0].isdecimal()


def _print_lines(found: Iterable[tuple[str, Finding]], *, width: int) -> Counter[str]:
    """Each as soon as it is known; how many there are of each mark."""
    marks: Counter[str] = Counter()
    for name, finding in found:
        text = line_of(*filter(None, (finding.found, finding.remedy)))
        print(f"{translated(MARKS[finding.mark])}{name:{width}}  {one_line(text)}", flush=True)
        marks[finding.mark] += 1
    say(f"problems: {marks['problem']}, notes: {marks['note']}")
    return marks


def _print_json(found: Iterable[tuple[str, Finding]]) -> Counter[str]:
    findings = [{"check": name, **asdict(finding)} for name, finding in found]
    marks = Counter(each["mark"] for each in findings)
    counts = {"problems": marks["problem"], "notes": marks["note"]}
    print(json.dumps({"version": __version__, **counts, "findings": findings}, ensure_ascii=False))
    return marks
