from dataclasses import replace

import pytest

from qwen_aio.safeguards import OpeningCheck
from qwen_aio.tasks.opening import fault_of

CHECK = OpeningCheck(
    model="m",
    unfit={"negative": ("太好了", "congratulations"), "positive": ("抱歉", "sorry")},
    never=("【", "LLM"),
    things=(("物流", "快递"), ("battery", "charge")),
    instead={"en": "Thank you.", "zh": "谢谢。"},
)


@pytest.mark.parametrize(
    ("sentence", "text", "earlier", "fault"),
    [
        ("电池坏了真可惜。", "手机坏了", (), None),  # no thing of the list
        ("物流太慢，真抱歉。", "手机坏了", (), "invented"),
        ("物流太慢，真抱歉。", "快递还没到", (), None),  # by another word
        ("物流太慢，真抱歉。", "那怎么办", ("快递还没到", "真抱歉。"), None),
        ("The Battery is weak.", "it does not charge", (), None),
        ("The Battery is weak.", "it is broken", (), "invented"),
    ],
)
def test_a_thing_is_named_only_after_somebody_has(sentence, text, earlier, fault):
    assert fault_of(sentence, text=text, label="negative", check=replace(CHECK, unfit={}), earlier=earlier) == fault


@pytest.mark.parametrize(
    ("sentence", "text", "label", "fault"),
    [
        ("太好了，恭喜您！", "手机坏了", "negative", "mood"),
        ("Congratulations!", "I lost my job.", "negative", "mood"),
        ("抱歉让您久等。", "真的很好吃", "positive", "mood"),
        ("抱歉让您久等。", "等了三天", "negative", None),
        ("抱歉让您久等。", "等了三天", None, None),  # without a decision there is no mood to miss
        ("【情感】:负面", "等了三天", None, "template"),
        ("快递太慢了差评。", "快递太慢了,差评!", "negative", "echo"),
        ("The room was dirty.", "The room was dirty and cold.", "negative", "echo"),
        ("你好！", "你好", None, None),  # a greeting may come back
        ("That is a pity.", "手机坏了", "negative", "language"),
        ("真可惜。", "The phone broke.", "negative", "language"),
        ("👍", "The phone broke.", "negative", None),
        (" \u200b", "The phone broke.", "negative", "empty"),
    ],
)
def test_what_does_not_fit(sentence, text, label, fault):
    assert fault_of(sentence, text=text, label=label, check=CHECK) == fault
