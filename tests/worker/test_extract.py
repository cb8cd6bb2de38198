import math

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import ContextLimits, Task, Text
from qwen_aio.result import LabelScore, Scores, Timings, Usage
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.extract import GROUP_CHARS, MAX_CHARS, fits, telling_sentences

TEMPLATE = PromptTemplate(
    Task(
        "summarize",
        "generation",
        {},
        "{% block system %}s{% endblock %}{% block user %}{{ text }}{% endblock %}{% block answer %}{% endblock %}",
        "0",
    )
)


class CountingEngine:
    """The more stars a sentence has, the more probable it is by the token. Remembers its groups."""

    context = ContextLimits(2048, 1024)

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    async def score(self, request_id, prompt, continuations):
        self.groups.append(list(continuations))
        labels = tuple(LabelScore(text, math.log(0.1 + text.count("*")) * 5, 5) for text in continuations)
        return Scores(labels, Usage(10, 0, 0), Timings())

    async def tokenize(self, prompt):
        return [ord(char) for segment in prompt.segments if isinstance(segment, Text) for char in segment.text]


async def test_a_short_text_gives_one_sentence_and_a_long_one_two_in_its_order():
    engine = CountingEngine()
    assert (await telling_sentences(engine, "r", TEMPLATE, "甲。乙**。丙*。"))[0] == ["乙**。"]
    found, costs = await telling_sentences(engine, "r", TEMPLATE, "甲*。乙。丙**。丁。戊。")
    assert found == ["甲*。", "丙**。"]
    assert len(costs) == 1


async def test_a_text_of_one_sentence_is_its_own_summary_and_costs_nothing():
    engine = CountingEngine()
    assert await telling_sentences(engine, "r", TEMPLATE, " 就一句话 ") == (["就一句话"], [])
    assert await telling_sentences(engine, "r", TEMPLATE, "?!") == (["?!"], [])
    assert engine.groups == []


async def test_the_best_of_a_very_long_text_wins_from_any_group():
    lines = [f"第{number}句说的是平常的事情和别的事情。" for number in range(400)]
    lines[7], lines[333] = "这是最要紧的一句**。", "这是第二要紧的一句*。"
    engine = CountingEngine()
    found, costs = await telling_sentences(engine, "r", TEMPLATE, "".join(lines))
    assert found == [lines[7], lines[333]]
    assert len(costs) == len(engine.groups)
    longest = max(map(len, lines))
    assert all(sum(map(len, group)) <= max(GROUP_CHARS, 3 * longest) for group in engine.groups)


@given(st.lists(st.text(alphabet="好坏*a", min_size=1, max_size=300), min_size=1, max_size=60))
async def test_it_ends_with_sentences_of_the_text(lines):
    text = "。".join(lines)
    found, _ = await telling_sentences(CountingEngine(), "r", TEMPLATE, text)
    assert 1 <= len(found) <= 2
    assert all(sentence in text for sentence in found)


async def test_equal_sentences_are_scored_once():
    engine = CountingEngine()
    await telling_sentences(engine, "r", TEMPLATE, "好。好。坏。好。坏。")
    assert engine.groups == [["好。", "坏。"]]


async def test_a_text_that_is_too_long_is_read_at_both_ends():
    lines = [f"第{number}句说的是平常的事情和别的事情。" for number in range(3000)]
    lines[1], lines[1500], lines[2998] = "开头*。", "中间***。", "结尾**。"
    text = "".join(lines)
    engine = CountingEngine()
    found, [unread, *scored] = await telling_sentences(engine, "r", TEMPLATE, text)
    assert found == ["开头*。", "结尾**。"]
    assert not fits(text)
    assert len(engine.groups) < 2 * MAX_CHARS / GROUP_CHARS
    assert unread.usage == Usage(len(text) - MAX_CHARS - 1, 0, 0, len(text) - MAX_CHARS - 1)  # a line joins the ends
    assert all(score.usage.cut_tokens == 0 for score in scored)


async def test_a_long_text_without_a_letter_is_cut_too():
    found, _ = await telling_sentences(CountingEngine(), "r", TEMPLATE, "!" * (MAX_CHARS + 1))
    assert found == ["!" * MAX_CHARS]
