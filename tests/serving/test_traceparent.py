"""The trace that a request belongs to: kept if it is sound, dropped if it is not."""

import pytest
from starlette.datastructures import Headers

from qwen_aio.serving.traceparent import traceparent_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOUND = f"00-{TRACE}-{PARENT}-01"


def traceparent(*values: str) -> str:
    return traceparent_of(Headers(raw=[(b"traceparent", value.encode("latin-1")) for value in values]))


@pytest.mark.parametrize("value", [SOUND, f"00-{TRACE}-{PARENT}-00", f"fe-{TRACE}-{PARENT}-ff"])
def test_a_sound_one_is_kept_as_it_is(value):
    assert traceparent(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        SOUND.upper(),
        f" {SOUND}",
        f"{SOUND}\n",
        f"{SOUND}-more",
        f"{SOUND}\r\nset-cookie: x",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT[:-1]}ä-01",
        f"00-{TRACE}-{PARENT}",
        "x" * 10_000,
    ],
)
def test_a_malformed_one_is_dropped(value):
    assert traceparent(value) == ""


def test_two_are_none_since_neither_is_known_to_be_right():
    assert traceparent(SOUND, SOUND) == ""
    assert traceparent() == ""
