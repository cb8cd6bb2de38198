"""How much of a prompt was cut: `usage` counts what came in, not what was left of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from qwen_aio.core import Prompt
from qwen_aio.result import Completion, Scores, Truncation
from qwen_aio.worker.execution.engine import EngineClient

Computed = TypeVar("Computed", Scores, Completion)


async def with_cut(engine: EngineClient, prompt: Prompt, computed: Computed) -> Computed:
    """`computed` of `prompt`, with the tokens that its truncation left out. Raises EngineStopped."""
    if computed.truncation == Truncation():
        return computed
    read, came_in = computed.usage.prompt_tokens, len(await engine.tokenize(prompt))
    cut = max(came_in - read, 0)  # the two ends of a cut text may begin and end with other tokens
    return replace(computed, usage=replace(computed.usage, prompt_tokens=read + cut, cut_tokens=cut))
