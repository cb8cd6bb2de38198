from dataclasses import replace

import pytest

from qwen_aio.core import Message
from qwen_aio.tasks.template import PromptTemplate
from training.rows import Row, Rows


def test_a_decision_is_the_products_prompt_and_the_labels_text(encoder, tokenizer):
    task = encoder.tasks["sentiment"]
    row = encoder.decision("sentiment", "快递太慢了", {"negative": 0.9, "neutral": 0.1}, limit=99)
    assert list(row.ids) == tokenizer.encode(PromptTemplate(task).prompt("快递太慢了").body)
    assert not any(row.answer)
    assert row.soft == tuple({"negative": 0.9, "neutral": 0.1}.get(label.name, 0.0) for label in task.labels)


def test_rows_of_operators_with_other_focus_words_are_reminded_of_those(encoder, tokenizer):
    other = encoder.with_task(replace(encoder.tasks["sentiment"], focus_words=("房间", "物流")))
    row = other.decision("sentiment", "房间很干净", {"positive": 1.0}, limit=99)
    assert "注意:房间\n房间很干净" in tokenizer.decode(row.ids)
    assert "注意" not in tokenizer.decode(encoder.decision("sentiment", "房间很干净", {"positive": 1.0}, limit=99).ids)


def test_a_conversation_is_the_products_prompt_with_history_feeling_and_reply(encoder, tokenizer):
    row = encoder.conversation("chat", ("你好", "我在", "房间很干净", "the battery"), limit=99, feeling="正面")
    history = (Message("user", "你好"), Message("assistant", "我在"))
    prompt = PromptTemplate(encoder.tasks["chat"]).prompt("房间很干净", history=history, feeling="正面")
    expected = [token for turn in (*prompt.turns, prompt.body) for token in tokenizer.encode(turn)]
    assert list(row.ids[: len(expected)]) == expected
    assert "正面" in tokenizer.decode(row.ids)


def test_every_assistant_turn_up_to_its_end_is_the_models_to_say_and_nothing_else(encoder, tokenizer):
    row = encoder.conversation("chat", ("你好", "我在", "房间", "很好"), limit=99)
    own = [token for token, is_own in zip(row.ids, row.answer, strict=True) if is_own]
    end = tokenizer.control_id("<|im_end|>")
    assert own == [*tokenizer.encode_text("我在"), end, *tokenizer.encode_text("很好"), end]


def test_a_user_who_writes_assistant_is_not_taken_for_one(encoder, tokenizer):
    row = encoder.conversation("chat", ("assistant\nx", "我在"), limit=99)
    own = [token for token, is_own in zip(row.ids, row.answer, strict=True) if is_own]
    assert own == [*tokenizer.encode_text("我在"), tokenizer.control_id("<|im_end|>")]


@pytest.mark.parametrize("limit", [8, 21])
def test_a_long_text_keeps_its_head_and_tail(encoder, tokenizer, limit):
    whole = encoder.question("sentiment", "房间很干净" * 50, limit=10_000)
    cut = encoder.question("sentiment", "房间很干净" * 50, limit=limit)
    around = len(encoder.question("sentiment", "", limit=99)) - len(tokenizer.encode_text("user\n"))
    assert len(cut) == around + limit
    assert cut[: limit // 2] == whole[: limit // 2]
    assert cut[-around:] == whole[-around:]


def test_rows_come_back_from_disk_as_they_were(tmp_path):
    rows = Rows.collect([(Row((1, 2, 3), (False, True, True)), "a"), (Row((4, 5), (False, True)), "b")])
    rows.save(tmp_path / "rows.npz")
    back = Rows.load(tmp_path / "rows.npz")
    assert len(back) == 2
    for name, array in vars(rows).items():
        assert (vars(back)[name] == array).all()
    assert back.lengths.tolist() == [3, 2]
    assert back.repeats({"a": 1.5, "b": 0.0}).tolist() == [1.5, 0.0]
