"""The log: one line for each event, as text or as a JSON object, whatever is in the event."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from qwen_aio.config import Settings

# Our messages read `something happened id=%s ms=%d`: names of the fields stand in the template.
_FIELD = re.compile(r"(\w+)=(%[sdg])")
_RESERVED = {"time", "level", "logger", "message", "traceback"}


def log_to_stderr(settings: Settings) -> None:
    """From now on, this process writes its log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns of every client that does not speak HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message. Lines of a traceback are indented, so that none can pass for an event."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        return "\n".join(f"    {one_line(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, the fields that the message names, and `traceback` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(record.getMessage()),
            **fields_of(record),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)  # ASCII: no character of it ends a line


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What stands behind `name=` in the message, if every value of it does."""
    found = _FIELD.findall(record.msg) if isinstance(record.msg, str) else []
    values = record.args if isinstance(record.args, tuple) else ()
    if len(found) != len(values):
        return {}
    return {
        f"{name}_" if name in _RESERVED else name: value if isinstance(value, int | float) else str(value)
        for (name, _), value in zip(found, values, strict=True)
    }


def one_line(text: str) -> str:
    """`text` without line breaks, escape codes and marks that change its direction: they are written out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
