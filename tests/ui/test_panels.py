"""The HTML of the page: complete, in the visitor's language, and text stays text."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.result import Decided, Explained, Explanation, Phrase, Usage
from qwen_aio.ui.about import About
from qwen_aio.ui.html.conversation import conversation_html
from qwen_aio.ui.html.decision import MAX_QUOTE_CHARS, decision_html, duration, route_text
from qwen_aio.ui.html.frame import about_html, header_html, notices_html
from qwen_aio.ui.strings import CHINESE, ENGLISH
from qwen_aio.ui.view import Exchange, LatestMessage, Notice, View
from tests.ui.fakes import NEGATIVE, TASKS, done

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "![x](http://evil.example/x.png)",
    "</div></blockquote><iframe src=//evil.example>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "<svg/onload=alert(1)>",
    "${alert(1)} {{constructor}} @children",
    "&lt;b&gt; &amp;",
    "<!-- <style>*{display:none}</style>",
]
OUR_TAGS = {"div", "p", "span", "strong", "ul", "li", "dl", "dt", "dd", "blockquote", "button", "i", "h1", "h2", "mark"}
OUR_ATTRIBUTES = {
    "class",
    "style",
    "title",
    "lang",
    "dir",
    "type",
    "role",
    "aria-live",
    "aria-label",
    "aria-hidden",
    "data-copied",
}


class Reader(HTMLParser):
    """Reads a page as a browser would: its tags, their attributes, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def finished(text: str, reply: str) -> View:
    """The view after a request for both sides."""
    decision = replace(NEGATIVE, merged=f"【{text}】")
    view = View().asking(text, expects_answer=True).after(Decided(decision))
    return view.after(done(reply, decision=decision, route=f"rule sentiment.words: {text}"))


def page(view: View) -> str:
    return decision_html(view.latest, ENGLISH, tasks=TASKS, is_running=False) + conversation_html(view, ENGLISH)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_people_and_models_write_stays_text(text: str) -> None:
    reader = Reader(page(finished(text, text)))
    assert reader.tags <= OUR_TAGS and reader.attributes <= OUR_ATTRIBUTES
    assert reader.text.count(text) == 6  # quote, merged line twice, route, both messages


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=MAX_QUOTE_CHARS))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    reader = Reader(conversation_html(View((Exchange(text, text),)), ENGLISH))
    assert reader.tags <= OUR_TAGS and reader.attributes <= OUR_ATTRIBUTES
    assert reader.text.count(text) >= 2


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_models_labels_and_errors_stay_text(text: str) -> None:
    unknown = replace(NEGATIVE, task=text, label=text, emoji=text, emotion=text, scores={text: 1.0})
    html = (
        about_html(About(text, is_bundled=True, version=text, worker=text), ENGLISH)
        + notices_html([Notice("invalid_request", {"message": text}, is_error=True)], ENGLISH)
        + decision_html(LatestMessage("x", unknown), ENGLISH, tasks={}, is_running=True)
        + header_html(ENGLISH)
    )
    reader = Reader(html)
    assert reader.tags <= OUR_TAGS and reader.attributes <= OUR_ATTRIBUTES


def test_the_panel_shows_label_confidence_bars_line_route_and_timing() -> None:
    view = View().asking("有点小失望", expects_answer=True).after(done("理解您的心情。", decision=NEGATIVE))
    english = Reader(decision_html(view.latest, ENGLISH, tasks=TASKS, is_running=False)).text
    for shown in (
        "有点小失望",
        "😔",
        "Negative",
        "high confidence",
        "94.0 %",
        "4.0 %",
        "2.0 %",
        "rule sentiment.words: 失望",
    ):
        assert shown in english
    for shown in ('【😔 LLM 情感判断:负面|高置信】→ "理解您的心情。"', "88 ms", "1.2 s", "1.3 s", "101 of 155"):
        assert shown in english
    chinese = Reader(decision_html(view.latest, CHINESE, tasks=TASKS, is_running=False)).text
    assert "负面" in chinese and "置信度高" in chinese and "规则 sentiment.words: 失望" in chinese
    assert "Negative" not in chinese


def test_an_abstained_decision_says_so_and_names_its_best_label() -> None:
    decision = replace(NEGATIVE, label="neutral", confidence="低", probability=0.453, abstained=True)
    english = decision_html(LatestMessage("x", decision), ENGLISH, tasks=TASKS, is_running=False)
    assert "counts as neutral. Most likely: Negative, 45.3 %." in english
    chinese = decision_html(LatestMessage("x", decision), CHINESE, tasks=TASKS, is_running=False)
    assert "记为中性。最可能的是负面：45.3 %。" in chinese
    assert "Most likely" not in decision_html(LatestMessage("x", NEGATIVE), ENGLISH, tasks=TASKS, is_running=False)


EXPLANATION = Explanation(
    label="negative",
    phrases=(Phrase("失望", 5, 0.5), Phrase("包装好,", 0, -0.25), Phrase("很", 4, 0.001)),
    reason="支持“负面”的是“失望”。",
    usage=Usage(),
    total_ms=9.0,
)


def test_phrases_that_moved_the_decision_are_marked_by_their_strength() -> None:
    latest = LatestMessage("包装好,很失望了", replace(NEGATIVE, explanation=EXPLANATION))
    html = decision_html(latest, ENGLISH, tasks=TASKS, is_running=False)
    assert (
        '<blockquote dir="auto"><mark class="against" style="--strength:50%" title="Without it the label would have '
        '25.0 points more">包装好,</mark>很<mark class="for" style="--strength:100%" title="Without it the label would '
        'have 50.0 points less">失望</mark>了</blockquote>'
    ) in html
    assert "支持“负面”的是“失望”。" in Reader(html).text
    assert "该标签的概率减少 50.0 个百分点" in decision_html(latest, CHINESE, tasks=TASKS, is_running=False)


def test_an_explanation_that_comes_after_the_decision_is_shown_with_it() -> None:
    view = View().asking("包装好,很失望了", expects_answer=False).after(Decided(NEGATIVE)).after(Explained(EXPLANATION))
    assert view.latest.decision is not None and view.latest.decision.explanation == EXPLANATION


@given(st.text(max_size=300), st.lists(st.tuples(st.integers(1, 60), st.floats(-1, 1)), max_size=6))
def test_marked_text_is_the_text(text: str, cuts: list[tuple[int, float]]) -> None:
    phrases, start = [], 0
    for length, weight in cuts:
        if text[start : start + length]:
            phrases.append(Phrase(text[start : start + length], start, weight))
        start += length
    explanation = replace(EXPLANATION, phrases=tuple(phrases), reason=None)
    html = decision_html(
        LatestMessage(text, replace(NEGATIVE, explanation=explanation)), ENGLISH, tasks=TASKS, is_running=False
    )
    shown = Reader(html)
    assert shown.tags <= OUR_TAGS and shown.attributes <= OUR_ATTRIBUTES
    assert shown.text.startswith(Reader(f"<p>{escape(text[:MAX_QUOTE_CHARS])}</p>").text)


def test_the_panel_says_what_it_waits_for() -> None:
    assert ENGLISH.decision_empty in decision_html(LatestMessage(), ENGLISH, tasks=TASKS, is_running=False)
    assert ENGLISH.decision_waiting in decision_html(LatestMessage("x"), ENGLISH, tasks=TASKS, is_running=True)
    chat = View().asking("x", expects_answer=True).after(done("y"))
    assert ENGLISH.decision_none in decision_html(chat.latest, ENGLISH, tasks=TASKS, is_running=False)


def test_a_long_text_is_quoted_in_part() -> None:
    text = "长" * (MAX_QUOTE_CHARS + 1)
    assert "长" * MAX_QUOTE_CHARS + "…" in decision_html(LatestMessage(text), ENGLISH, tasks={}, is_running=True)


def test_an_answer_that_is_awaited_is_seen_to_be_awaited() -> None:
    view = View().asking("hello", expects_answer=True)
    assert "writing" in conversation_html(view, ENGLISH)
    assert "writing" not in conversation_html(view.ended(), ENGLISH)


def test_only_the_bundled_model_is_called_a_demonstration() -> None:
    bundled = about_html(About("tiny", is_bundled=True, version="1", worker="w"), ENGLISH)
    own = about_html(About("qwen1.5-0.5b-chat", is_bundled=False, version="1", worker="w"), ENGLISH)
    assert "demonstration" in bundled and "demonstration" not in own and "qwen1.5-0.5b-chat" in own


def test_a_remote_server_is_named_with_its_address() -> None:
    about = About("tiny", is_bundled=False, version="1", worker="qwen-1", url="http://there:8000")
    for strings in (ENGLISH, CHINESE):
        shown = Reader(about_html(about, strings)).text
        assert all(part in shown for part in ("tiny", "qwen-1", "http://there:8000"))


def test_a_model_that_is_not_known_is_not_made_up() -> None:
    about = About(None, is_bundled=False, version="1", worker=None, url="http://there:8000")
    for strings in (ENGLISH, CHINESE):
        shown = Reader(about_html(about, strings)).text
        assert "None" not in shown and "http://there:8000" in shown


@pytest.mark.parametrize(
    ("worker", "decided", "replied", "english", "chinese"),
    [
        ("qwen-1", "qwen-1", "qwen-1", "qwen-1", "qwen-1"),
        ("qwen-1", "", "qwen-1", "qwen-1", "qwen-1"),
        ("qwen-2", "qwen-1", "qwen-2", "qwen-1 (decision), qwen-2 (answer)", "qwen-1（判断），qwen-2（回复）"),
        ("qwen-1", "", "qwen-2", "qwen-1 (decision), qwen-2 (answer)", "qwen-1（判断），qwen-2（回复）"),
    ],
)
def test_who_answered_is_shown_and_both_if_they_differ(
    worker: str, decided: str, replied: str, english: str, chinese: str
) -> None:
    end = done("yes", decision=replace(NEGATIVE, worker=decided), worker=worker, reply_worker=replied)
    latest = View().asking("x", expects_answer=True).after(end).latest
    for strings, workers in ((ENGLISH, english), (CHINESE, chinese)):
        shown = decision_html(latest, strings, tasks=TASKS, is_running=False)
        assert f"<dt>{strings.answered_by}</dt><dd>{workers}</dd>" in shown


def test_a_decision_alone_and_a_reply_alone_have_one_worker() -> None:
    for end in (done(decision=NEGATIVE, worker="qwen-3"), done("yes", worker="qwen-3", reply_worker="qwen-3")):
        latest = View().asking("x", expects_answer=False).after(end).latest
        shown = decision_html(latest, ENGLISH, tasks=TASKS, is_running=False)
        assert "<dd>qwen-3</dd>" in shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0.4, "0 ms"), (88.2, "88 ms"), (1250.0, "1.2 s"), (61000.0, "61.0 s")]
)
def test_durations_are_short(milliseconds: float, shown: str) -> None:
    assert duration(milliseconds) == shown


@pytest.mark.parametrize(
    ("route", "shown"),
    [
        ("rule safety.crisis: 不想活", "规则 safety.crisis: 不想活"),
        ("mode sentiment", "你选择的 sentiment"),
        ("default chat", "没有匹配的规则，使用 chat"),
        ("something new", "something new"),
    ],
)
def test_the_route_is_shown_in_words(route: str, shown: str) -> None:
    assert route_text(route, CHINESE) == shown
