"""What a request has taken, in tokens, for the limits of its client."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from qwen_aio.result import Done, Event, Result, TextDelta


def count(scope: Scope, *results: Result) -> None:
    """These are what the request of `scope` led to."""
    scope["state"]["tokens"] = sum(map(_tokens_of, results))


def counted(scope: Scope, frame: Callable[[Event], bytes]) -> Callable[[Event], bytes]:
    """`frame`, which also counts: a stream that is left before its end has taken at least a token for each delta."""

    def count_and_frame(event: Event) -> bytes:
        if isinstance(event, TextDelta):
            scope["state"]["tokens"] += 1
        elif isinstance(event, Done):
            count(scope, event.result)
        return frame(event)

    return count_and_frame


def _tokens_of(result: Result) -> int:
    explanation = result.decision.explanation if result.decision else None
    parts = [part.usage for part in (result.decision, explanation, result.answer) if part]
    return sum(usage.prompt_tokens - usage.cut_tokens + usage.completion_tokens for usage in parts)
