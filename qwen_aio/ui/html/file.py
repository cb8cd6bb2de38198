"""The second tab as HTML: a file, progress, and what came of the rows. Everything that is shown passes `escape`."""

from __future__ import annotations

import json
from html import escape

from qwen_aio.core import Label
from qwen_aio.evaluation.evaluation import NUM_REASONS
from qwen_aio.evaluation.report import html
from qwen_aio.evaluation.share import Share
from qwen_aio.ui.html.frame import percent_of
from qwen_aio.ui.labelling import FileView, Outcome
from qwen_aio.ui.strings import PageStrings

# Without words of its own, so that no language replaces it and loses the chosen file. Its name is the hint.
PICKER = '<input type="file" id="chosen-file" aria-labelledby="file-hint" accept=".csv,.tsv,.txt,.jsonl,.ndjson">'
PICKER_BEHAVIOUR = 'element.addEventListener("change", () => trigger("upload"));'
# Runs once in the browser, with `element` the panel: the threshold is moved there, and files are saved from there.
OUTCOME_BEHAVIOUR = """
const percent = (part, all) => all ? (100 * part / all).toFixed(1) + " %" : "–";
element.addEventListener("input", (event) => {
    if (!event.target.matches("#threshold")) return;
    const rows = JSON.parse(event.target.dataset.rows), least = Number(event.target.value);
    const decided = rows.filter(([probability]) => probability >= least);
    const right = decided.filter(([, isRight]) => isRight).length;
    const show = (name, part, all) => {
        const bar = element.querySelector(`#${name}`);
        if (!bar) return;
        bar.querySelector(".track span").style.width = all ? `${100 * part / all}%` : "0";
        bar.querySelector(".value").textContent = `${percent(part, all)} (${part} / ${all})`;
    };
    element.querySelector("#least").textContent = least.toFixed(2);
    show("share-decided", decided.length, rows.length);
    show("share-right", right, decided.length);
});
element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (!button) return;
    const { content } = button.dataset;
    const text = content ? JSON.parse(content) : element.querySelector("iframe").srcdoc;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: button.dataset.type }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""


def hint_html(strings: PageStrings) -> str:
    """What may be chosen, and what becomes of it."""
    return f'<p class="hint">{escape(strings.file_hint)}</p>'


def progress_html(view: FileView, strings: PageStrings) -> str:
    """How much is in the chosen file, or how far the rows are."""
    if view.columns and view.columns.names:
        words = strings.file_columns.format(rows=view.columns.num_rows, columns=len(view.columns.names))
        return f'<span class="hint">{escape(words)}</span>'
    if not view.is_running:
        return ""
    words = escape(strings.rows_done.format(done=view.done, total=view.total))
    return f'<progress max="{view.total}" value="{view.done}" aria-label="{words}"></progress><span>{words}</span>'


def outcome_html(outcome: Outcome, strings: PageStrings) -> str:
    """Shares, the threshold that one can move, what can be saved, and the report where true labels are known."""
    num_rows = sum(share.count for share in outcome.shares.values())
    parts = [f"<h2>{escape(strings.rows_labelled.format(rows=num_rows, seconds=outcome.seconds))}</h2>"]
    for why, count in outcome.left_out.most_common(NUM_REASONS):
        parts.append(f'<p class="notice">{escape(strings.rows_left_out.format(count=count, why=why))}</p>')
    if num_rows:
        shares = (_share_html(label, share, strings) for label, share in outcome.shares.items())
        parts += [f"<dl>{''.join(shares)}</dl>", _threshold_html(outcome, strings)]
    parts += [_saving_html(outcome, strings), _report_html(outcome, strings)]
    return f'<div class="outcome">{"".join(parts)}</div>'


def _share_html(label: Label, share: Share, strings: PageStrings) -> str:
    low, high = share.interval
    words = strings.label_shares.format(
        count=share.count, percent=percent_of(share.value), low=percent_of(low), high=percent_of(high)
    )
    return f"<div><dt>{escape(strings.label(label))}</dt><dd>{escape(words)}</dd></div>"


def _threshold_html(outcome: Outcome, strings: PageStrings) -> str:
    rows = outcome.probabilities
    data = escape(json.dumps([[round(probability, 4), is_right] for probability, is_right in rows]))
    bars = _bar_html("share-decided", strings.share_decided, Share(len(rows), len(rows)))
    if outcome.evaluation:
        right = sum(bool(is_right) for _, is_right in rows)
        bars += _bar_html("share-right", strings.share_right, Share(right, len(rows)))
    return (
        f'<label class="threshold">{escape(strings.abstain_below)} <output id="least">0.00</output>'
        f'<input type="range" id="threshold" min="0" max="1" step="0.01" value="0" data-rows="{data}"></label>'
        f'<ul class="bars" aria-live="polite">{bars}</ul>'
    )


def _bar_html(name: str, words: str, share: Share) -> str:
    percent = percent_of(share.value) if share.total else "0"
    value = f"{percent} % ({share.count} / {share.total})"
    return (
        f'<li id="{name}" class="chosen"><span>{escape(words)}</span>'
        f'<span class="track"><span style="width:{percent}%"></span></span><span class="value">{value}</span></li>'
    )


def _saving_html(outcome: Outcome, strings: PageStrings) -> str:
    content = escape(json.dumps(outcome.labelled))  # as JSON, because HTML does not keep the ends of lines
    saving = (
        f'<button type="button" data-name="{escape(outcome.name)}" data-type="text/plain;charset=utf-8"'
        f' data-content="{content}">{escape(strings.save_labelled)}</button>'
    )
    if outcome.evaluation:
        saving += (
            '<button type="button" data-name="report.html" data-type="text/html;charset=utf-8">'
            f"{escape(strings.save_report)}</button>"
        )
    return f'<p class="saving">{saving}</p>'


def _report_html(outcome: Outcome, strings: PageStrings) -> str:
    if outcome.evaluation is None:
        return ""
    page = html(outcome.evaluation, language="zh" if strings.in_chinese else "en")
    return f'<iframe sandbox="" title="{escape(strings.report)}" srcdoc="{escape(page)}"></iframe>'
