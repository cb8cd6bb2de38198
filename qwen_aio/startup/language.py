"""The language of whoever runs a command, by the locale of the process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # POSIX: the first that is set


def operators_language(environment: Mapping[str, str] = os.environ) -> Literal["en", "zh"]:
    """Chinese where the locale is; else English."""
    locale = next((value for name in VARIABLES if (value := environment.get(name))), "")
    return "zh" if locale.lower().startswith("zh") else "en"
