"""The left panel, the decision, as HTML. Pure functions; everything that is shown passes `escape`.

Works for any decision task: labels and emojis come from the task, words from strings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from qwen_aio.core import Label, Task
from qwen_aio.result import Decision, Explanation, Phrase, Result
from qwen_aio.ui.html.frame import percent_of
from qwen_aio.ui.strings import PageStrings
from qwen_aio.ui.view import LatestMessage

MAX_QUOTE_CHARS = 160


def decision_html(latest: LatestMessage, strings: PageStrings, *, tasks: Mapping[str, Task], is_running: bool) -> str:
    """The text, its label with confidence, all scores, the merged line, route and timings."""
    explanation = latest.decision.explanation if latest.decision else None
    parts = [_quote(latest.text, explanation, strings)]
    if latest.decision is not None:
        line = latest.result.merged_line if latest.result is not None else latest.decision.merged
        parts += _decided(latest.decision, strings, tasks)
        parts.append(f'<p class="merged" lang="zh">{escape(line)}</p>')
        if explanation and explanation.reason:
            parts.append(f'<p class="reason" dir="auto">{escape(explanation.reason)}</p>')
    elif not latest.text:
        parts += [_faces(tasks), _hint(strings.decision_empty)]
    elif is_running:
        parts.append(f'<p class="hint waiting">{escape(strings.decision_waiting)}</p>')
    elif latest.result is not None:
        parts.append(_hint(strings.decision_none))
    if latest.result is not None:
        parts.append(_facts(latest.result, strings))
    return f'<div class="decision" aria-live="polite">{"".join(parts)}</div>'


def duration(milliseconds: float) -> str:
    """`88 ms`, `1.4 s`."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def route_text(route: str, strings: PageStrings) -> str:
    """Why this task was chosen, in the page's language."""
    kind, _, rest = route.partition(" ")
    known = {"rule": strings.route_rule, "mode": strings.route_mode, "default": strings.route_default}
    return known[kind].format(rest) if kind in known else route


def _quote(text: str, explanation: Explanation | None, strings: PageStrings) -> str:
    """The text; as far as it is shown, its phrases are marked for and against the label, by their weight."""
    if not text:
        return ""
    phrases = sorted(explanation.phrases, key=lambda phrase: phrase.start) if explanation else []
    strongest = max((abs(phrase.weight) for phrase in phrases), default=0.0)
    parts, end = [], 0
    for phrase in phrases:
        if phrase.start + len(phrase.text) > MAX_QUOTE_CHARS:
            break
        parts.append(escape(text[end : phrase.start]) + _mark(phrase, strongest, strings))
        end = phrase.start + len(phrase.text)
    rest = text[end:] if len(text) <= MAX_QUOTE_CHARS else text[end:MAX_QUOTE_CHARS] + "…"
    return f'<blockquote dir="auto">{"".join(parts)}{escape(rest)}</blockquote>'


def _mark(phrase: Phrase, strongest: float, strings: PageStrings) -> str:
    if not phrase.is_notable:
        return escape(phrase.text)
    kind, words = ("for", strings.phrase_for) if phrase.weight > 0 else ("against", strings.phrase_against)
    title = words.format(percent_of(abs(phrase.weight)))
    strength = f"--strength:{abs(phrase.weight) / strongest * 100:.0f}%"
    return f'<mark class="{kind}" style="{strength}" title="{escape(title)}">{escape(phrase.text)}</mark>'


def _faces(tasks: Mapping[str, Task]) -> str:
    """The emojis of all labels that a visitor may choose a task for, before there is a decision."""
    faces = " ".join(label.emoji for name in sorted(tasks) if tasks[name].title for label in tasks[name].labels)
    return f'<p class="faces" aria-hidden="true">{escape(faces)}</p>'


def _hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'


def _decided(decision: Decision, strings: PageStrings, tasks: Mapping[str, Task]) -> list[str]:
    task = tasks.get(decision.task)
    labels = {label.name: label for label in task.labels} if task else {}
    chosen = labels.get(decision.label, Label(decision.label, decision.emotion, decision.emoji))
    decided = (
        f'<div class="decided"><span class="emoji" aria-hidden="true">{escape(chosen.emoji)}</span>'
        f"<p><strong>{escape(strings.label(chosen))}</strong>"
        f'<span class="confidence">{escape(strings.confidence[decision.confidence])}</span></p></div>'
    )
    bars = "".join(
        _bar(labels.get(name, Label(name, name, "")), share, strings, is_chosen=name == decision.label)
        for name, share in decision.scores.items()
    )
    return [
        decided,
        _abstained(decision, strings, labels),
        f'<ul class="bars" aria-label="{escape(strings.all_labels)}">{bars}</ul>',
    ]


def _abstained(decision: Decision, strings: PageStrings, labels: Mapping[str, Label]) -> str:
    if not decision.abstained:
        return ""
    best = labels.get(decision.best_label, Label(decision.best_label, decision.best_label, ""))
    return _hint(strings.abstained.format(label=strings.label(best), percent=percent_of(decision.probability)))


def _bar(label: Label, share: float, strings: PageStrings, *, is_chosen: bool) -> str:
    percent = percent_of(share)
    return (
        f'<li{" class=chosen" if is_chosen else ""}><span class="name">{escape(strings.label(label))}</span>'
        f'<span class="track" aria-hidden="true"><span style="width:{percent}%"></span></span>'
        f'<span class="value">{percent} %</span></li>'
    )


def _facts(result: Result, strings: PageStrings) -> str:
    facts = [(strings.route, route_text(result.route, strings))]
    parts = [part for part in (result.decision, result.answer) if part is not None]
    if result.decision is not None:
        facts.append((strings.timing_decision, duration(result.decision.timings.total_ms)))
    if result.answer is not None:
        facts.append((strings.timing_answer, duration(result.answer.timings.total_ms)))
    if len(parts) > 1:
        facts.append((strings.timing_total, duration(result.total_ms)))
    cached, prompt = sum(part.usage.cached_tokens for part in parts), sum(part.usage.prompt_tokens for part in parts)
    facts.append((strings.timing_cached, strings.cached.format(cached=cached, prompt=prompt)))
    facts.append((strings.answered_by, _workers(result, strings)))
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _workers(result: Result, strings: PageStrings) -> str:
    """The worker that answered, or two if decision and answer come from different ones."""
    decided = ""
    if result.decision is not None:  # /v1/run names the workers of the chosen task and of the reply
        decided = result.decision.worker or (result.worker if result.mode == result.decision.task else "")
    answered = result.answer.worker if result.answer else ""
    if decided and answered and decided != answered:
        return strings.workers.format(decision=decided, answer=answered)
    return decided or answered or result.worker
