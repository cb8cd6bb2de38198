"""`make campaign` tries more than `make test`, which has to be over in minutes."""

import os
from typing import TypeVar

T = TypeVar("T")

CAMPAIGN = os.environ.get("QWEN_AIO_CAMPAIGN") == "1"


def in_campaign(*cases: T) -> tuple[T, ...]:
    """Cases that cost much and tell little beyond those beside them."""
    return cases if CAMPAIGN else ()
