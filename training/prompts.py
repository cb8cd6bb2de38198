"""The sentiment task as operators might write it: other words, two labels, another form of the answer.

The network sees a share of its rows with each of them, so that an edit of the prompt changes few labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qwen_aio.core import Task


@dataclass(frozen=True)
class Wording:
    """One way to ask; `{}` in `user` is where the text goes."""

    name: str
    system: str
    user: str = "{}"
    answer: str = "【情感】:"
    labels: tuple[str, ...] = ("positive", "neutral", "negative")


WORDINGS = (
    Wording(
        "published",
        "你是一个冷静的情感分析师,只对输入文本做情感判断,输出必须是“正面”或“负面”,不得添加任何解释。若无法确定,输出“中性”。",
    ),
    Wording("two_labels", "判断这段文字的情感,只答正面或负面。", labels=("positive", "negative")),
    Wording("plain", "这段话的情感是正面、负面还是中性?只回答一个词。", answer="情感:"),
    Wording("reviewer", "你负责给用户评论标注情感。标签只有三个:正面、中性、负面。", "评论:{}", "标签:"),
    Wording(
        "english", "Classify the sentiment of the text. Answer 正面, 中性 or 负面 and nothing else.", "Text: {}", ""
    ),
    Wording("mood", "读一读用户写的话,说出他的情绪倾向:正面、负面,或者看不出时的中性。", answer="倾向:"),
    Wording("strict", "情感分类。输出格式:【情感】:标签。标签取自正面、负面、中性,不确定取中性。"),
)

# What the shipped template writes above the text.
MARKS = "{% if focus_words %}注意:{{ focus_words | join('、') }}\n{% endif %}{% if emphasis %}(强调)\n{% endif %}"


def worded(task: Task) -> Iterator[Task]:
    """`task` in every wording, each with a name of its own."""
    for wording in WORDINGS:
        user = MARKS + wording.user.replace("{}", "{{ text }}")
        template = (
            f"{{% block system %}}{wording.system}{{% endblock %}}"
            f"{{% block user %}}{user}{{% endblock %}}"
            f"{{% block answer %}}{wording.answer}{{% endblock %}}"
        )
        labels = tuple(label for label in task.labels if label.name in wording.labels)
        neutral = task.neutral if task.neutral in wording.labels else None
        yield replace(
            task,
            name=f"{task.name}-{wording.name}",
            template=template,
            labels=labels,
            neutral=neutral,
            hash=wording.name,
        )
