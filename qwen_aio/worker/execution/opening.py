"""The first sentence of an answer is held back until it is checked; see tasks/opening.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from qwen_aio.core import Sampling
from qwen_aio.result import AnswerStart, Completion, Safety, TextDelta
from qwen_aio.tasks.sentences import first_sentence

MAX_HELD_CHARS = 160  # a sentence that goes on is judged by its beginning

EngineOutputs = AsyncGenerator[TextDelta | Completion, None]


async def opened(
    draws: Sequence[Sampling],
    generate: Callable[[Sampling], EngineOutputs],
    *,
    fits: Callable[[str], bool] | None,
    safety: Safety | None,
) -> AsyncGenerator[AnswerStart | TextDelta | Completion, None]:
    """The outputs of the first draw whose first sentence fits, after its AnswerStart; none if no draw does.

    Without `fits` nothing is held back. The draw has begun when AnswerStart comes, so what the engine
    refuses is raised before it. Closing it closes the draw.
    """
    for sampling in draws:
        async with aclosing(generate(sampling)) as outputs:
            held, sentence = await _held(outputs, until_sentence_ends=fits is not None)
            if fits is not None and not fits(sentence):
                continue
            yield AnswerStart(sampling.seed, safety)
            for output in held:
                yield output
            async for output in outputs:
                yield output
            return


async def _held(outputs: EngineOutputs, *, until_sentence_ends: bool) -> tuple[list[TextDelta | Completion], str]:
    """The outputs up to the end of the first sentence, or the first one alone; and the sentence."""
    held: list[TextDelta | Completion] = []
    text = ""
    async for output in outputs:
        held.append(output)
        if isinstance(output, Completion) or not until_sentence_ends:
            break
        text += output.text
        if first_sentence(text) or len(text) >= MAX_HELD_CHARS:
            break
    return held, first_sentence(text) or text
