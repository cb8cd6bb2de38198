"""What is cut when the context is full, and how it is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import Prompt, Text
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import CHARS_PER_TOKEN, MIN_TEXT_TOKENS, truncate
from qwen_aio.errors import ContextExceeded, ContextTooSmall
from qwen_aio.result import Truncation
from tests.engine.running import prompt, turn


def test_what_fits_is_not_truncated(tokenizer: Tokenizer) -> None:
    asked = prompt("你好", turns=(turn("user", "hi"), turn("assistant", "yes")))
    truncated = truncate(asked, tokenizer=tokenizer, room=500)
    assert list(truncated.ids) == tokenizer.encode([*asked.head, *asked.turns[0], *asked.turns[1], *asked.body])
    assert truncated.truncation == Truncation()


def test_the_oldest_turns_go_first_and_the_text_stays_whole(tokenizer: Tokenizer) -> None:
    turns = tuple(turn("user", f"number {n}") for n in range(10))
    asked = prompt("你好", turns=turns)
    sizes = [len(tokenizer.encode(each)) for each in turns]
    fixed = len(tokenizer.encode([*asked.head, *asked.body]))
    truncated = truncate(asked, tokenizer=tokenizer, room=fixed + sum(sizes[-3:]) + 1)
    assert truncated.truncation == Truncation(dropped_turns=7)
    assert list(truncated.ids) == tokenizer.encode([*asked.head, *turns[7], *turns[8], *turns[9], *asked.body])


def test_then_the_middle_of_the_text_goes(tokenizer: Tokenizer) -> None:
    text = "A beginning. " + "the colour " * 100 + " The end."
    asked = prompt(text, turns=(turn("user", "x"),))
    truncated = truncate(asked, tokenizer=tokenizer, room=150)
    assert truncated.truncation == Truncation(dropped_turns=1, truncated=True)
    assert len(truncated.ids) == 150
    shown = tokenizer.decode(truncated.ids)
    assert "user\nA beginning." in shown
    assert shown.endswith("The end.\nassistant\n")


@given(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=5), st.integers(0, 200))
def test_it_always_fits_and_the_fixed_parts_are_whole(
    tokenizer: Tokenizer, text: str, earlier: list[str], room: int
) -> None:
    asked = prompt(text, turns=tuple(turn("user", each) for each in earlier))
    head, tail = tokenizer.encode(asked.head), tokenizer.encode(asked.body[-2:])
    try:
        truncated = truncate(asked, tokenizer=tokenizer, room=room)
    except ContextTooSmall:
        assert len(head) + len(tail) + 2 + MIN_TEXT_TOKENS >= room - len(tokenizer.encode_text("\n")) - 1
        return
    assert len(truncated.ids) <= room
    assert list(truncated.ids[: len(head)]) == head
    assert list(truncated.ids[-len(tail) :]) == tail


def test_a_megabyte_is_shortened_before_it_is_encoded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    plain = tokenizer.encode_text
    monkeypatch.setattr(tokenizer, "encode_text", lambda text: encoded.append(len(text)) or plain(text))
    turns = (turn("user", "y" * 1_000_000),)
    truncated = truncate(prompt("x" * 1_000_000, turns=turns), tokenizer=tokenizer, room=200)
    assert max(encoded) <= 200 * CHARS_PER_TOKEN
    assert truncated.truncation == Truncation(dropped_turns=1, truncated=True)


def test_no_room_for_a_text_is_an_error_with_a_way_out(tokenizer: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall, match="--max-context"):
        truncate(prompt("the colour " * 50, system="long " * 60), tokenizer=tokenizer, room=130)


def test_text_that_may_not_be_cut_is_not_cut(tokenizer: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall):
        truncate(Prompt((), (), (Text("the colour " * 50),)), tokenizer=tokenizer, room=60)


def test_a_prompt_that_must_fit_is_whole_or_refused(tokenizer: Tokenizer) -> None:
    asked = replace(prompt("the colour " * 40, turns=(turn("user", "x"),)), must_fit=True)
    ids = tokenizer.encode(asked.segments)
    assert list(truncate(asked, tokenizer=tokenizer, room=len(ids)).ids) == ids
    with pytest.raises(ContextExceeded, match=f"more than the {len(ids) - 1} tokens"):
        truncate(asked, tokenizer=tokenizer, room=len(ids) - 1)


@pytest.mark.parametrize("where", ["system", "turns", "text"])
def test_a_part_far_too_long_to_fit_is_refused_before_it_is_encoded(where: str) -> None:
    long = "x" * (16 * 100 + 1)
    parts = {"system": "s", "turns": (turn("assistant", long if where == "turns" else "t"),)}
    asked = prompt(long if where == "text" else "u", **parts | ({"system": long} if where == "system" else {}))
    with pytest.raises(ContextExceeded):
        truncate(replace(asked, must_fit=True), tokenizer=NoTokenizer(), room=100)  # type: ignore[arg-type]


class NoTokenizer:
    """Encodes nothing: it is not to be asked."""
