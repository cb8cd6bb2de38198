"""`make campaign` tries more than `make test`, which has to be over in minutes."""

import os
from typing import TypeVar

import pytest

T = TypeVar("T")

CAMPAIGN = os.environ.get("QWEN_AIO_CAMPAIGN") == "1"

only_in_campaign = pytest.mark.skipif(not CAMPAIGN, reason="takes half a minute: make campaign")


def in_campaign(*cases: T) -> tuple[T, ...]:
    """Cases that cost much and tell little beyond those beside them."""
    return cases if CAMPAIGN else ()
