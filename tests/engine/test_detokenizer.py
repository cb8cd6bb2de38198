"""Text comes in whole characters and without stop strings, however tokens split its bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.text.detokenizer import Detokenizer

CUTS = st.lists(st.integers(0, 200))
# Few letters, so that stop strings really occur and overlap.
SMALL_TEXT = st.text(alphabet="ab你😊 \n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab你😊 \n", min_size=1, max_size=4), max_size=3)


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    return [raw[start:end] for start, end in pairwise(edges)]


def told(pieces: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(stop)
    return [*(detokenizer.feed(piece) for piece in pieces), detokenizer.flush()], detokenizer.is_stopped


def before_stop(text: str, stop: list[str]) -> str:
    """The plain version: read letter by letter until a stop string is complete."""
    for end in range(1, len(text) + 1):
        found = [each for each in stop if text[:end].endswith(each)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@given(st.text(), CUTS)
def test_any_split_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    parts, _ = told(split(text.encode(), cuts), [])
    assert "".join(parts) == text.strip()


@given(SMALL_TEXT, STOPS, CUTS)
def test_the_text_ends_before_the_first_complete_stop_string(text: str, stop: list[str], cuts: list[int]) -> None:
    parts, is_stopped = told(split(text.encode(), cuts), stop)
    assert "".join(parts) == before_stop(text, stop).strip()
    assert is_stopped == any(each in text for each in stop)
    assert not any(each in "".join(parts) for each in stop)


@given(st.binary(max_size=40), CUTS)
def test_bytes_that_are_no_text_are_replaced_the_same_way_in_any_split(raw: bytes, cuts: list[int]) -> None:
    assert "".join(told(split(raw, cuts), [])[0]) == "".join(told([raw], [])[0])


def test_half_a_character_waits_for_its_other_half() -> None:
    detokenizer = Detokenizer([])
    raw = "好".encode()
    assert [detokenizer.feed(raw[:2]), detokenizer.feed(raw[2:])] == ["", "好"]


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert told([b"ok", "好".encode()[:2]], []) == (["ok", "", ""], False)


def test_the_beginning_of_a_stop_string_waits_until_it_is_decided() -> None:
    detokenizer = Detokenizer(["STOP"])
    assert [detokenizer.feed(piece) for piece in (b"a S", b"T", b"A", b" ST")] == ["a", "", " STA", ""]
    assert detokenizer.flush() == " ST"


@pytest.mark.parametrize("space", [" ", "\n\n", "\u3000", " \t\r\n"])
def test_white_space_at_either_end_is_no_part_of_the_answer(space: str) -> None:
    raw = space.encode()
    assert told([raw, raw, b"a", raw, raw], []) == (["", "", "a", "", "", ""], False)
    assert told([raw + b"a" + raw, raw + b"b"], []) == (["a", 2 * space + "b", ""], False)
    assert told([raw, raw], []) == (["", "", ""], False)


def test_white_space_before_a_stop_string_is_not_given_out() -> None:
    assert told([b" a ", b"\n", b"STOP"], ["STOP"]) == (["a", "", "", ""], True)
    assert told([b" ", b"\na"], ["\n"]) == (["", "", ""], True)  # a stop string of white space counts as any other


def test_after_a_stop_string_nothing_more_comes() -> None:
    detokenizer = Detokenizer(["."])
    assert detokenizer.feed(b"yes. And") == "yes"
    assert detokenizer.feed(b" more") == ""
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("text", ["a\r\nb", "\ufeffx", "e\u0301", "👩‍👩‍👧", "\x00"])
def test_odd_characters_come_through(text: str) -> None:
    assert "".join(told([bytes([byte]) for byte in text.encode()], ["zz"])[0]) == text
