"""The far end of Process.ask: one JSON command a line on stdin, one JSON answer a line on stdout.

Runs in each peer's own environment: nothing but the standard library. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Moments = Sequence[tuple[float, int]]  # of one stream: (seconds, tokens that came then)


def serve_commands(verbs: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer until stdin ends. The first line out says that everything is loaded."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        print(json.dumps({"ready": True}), file=out, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            print(json.dumps(verbs[command.pop("verb")](**command)), file=out, flush=True)


def together(streams: Sequence[Moments]) -> dict[str, float]:
    """Tokens that came while all streams were running: after the last has begun, until the first has ended."""
    begin_s = max(stream[0][0] for stream in streams)
    end_s = min(stream[-1][0] for stream in streams)
    tokens = sum(count for stream in streams for moment_s, count in stream if begin_s < moment_s <= end_s)
    return {"tokens": tokens, "seconds": end_s - begin_s}
