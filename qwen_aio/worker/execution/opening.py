"""Sentences of an answer are held back until they are checked; see tasks/opening.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from qwen_aio.core import Sampling
from qwen_aio.result import AnswerStart, Completion, Safety, TextDelta
from qwen_aio.tasks.sentences import first_sentence

MAX_HELD_CHARS = 160  # a sentence that goes on is judged by its beginning

EngineOutputs = AsyncGenerator[TextDelta | Completion, None]
Held = list[TextDelta | Completion]


async def opened(
    draws: Sequence[Sampling],
    generate: Callable[[Sampling], EngineOutputs],
    *,
    fits: Callable[[str, bool], bool] | None,
    is_resumed: bool,
    safety: Safety | None,
) -> AsyncGenerator[AnswerStart | TextDelta | Completion, None]:
    """The outputs of the first draw whose first sentence fits, after its AnswerStart; none if no draw does.

    A later sentence that does not fit ends the text; the Completion still comes. An answer that is resumed has
    later ones only: it goes on behind whole sentences, and ends where it would have ended. `fits` gets a
    sentence, and whether it is the first; without `fits` nothing is held back. The draw has begun when
    AnswerStart comes, so what the engine refuses is raised before it. Closing it closes the draw.
    """
    for sampling in draws:
        has_begun, is_shown = False, True
        async with (
            aclosing(generate(sampling)) as outputs,
            aclosing(_groups(outputs, checks=fits is not None)) as groups,
        ):
            async for held, sentence in groups:
                is_first = not (has_begun or is_resumed)
                if fits is not None and is_shown and (sentence or is_first):
                    is_shown = fits(sentence, is_first)
                    if is_first and not is_shown:
                        break
                if not has_begun:
                    yield AnswerStart(sampling.seed, safety)
                    has_begun = True
                for output in held:
                    if is_shown or isinstance(output, Completion):
                        yield output
        if has_begun:
            return


async def _groups(outputs: EngineOutputs, *, checks: bool) -> AsyncGenerator[tuple[Held, str], None]:
    """The outputs by the sentence that they belong to, each with its text; one by one if nothing is checked."""
    held: Held = []
    text = ""
    async for output in outputs:
        held.append(output)
        if isinstance(output, Completion) or not checks:
            yield held, text
            held = []
            continue
        before, text = len(text), text + output.text
        sentence = first_sentence(text) or (text if len(text) >= MAX_HELD_CHARS else None)
        if sentence is None:
            continue
        # Drafted tokens may end one sentence and begin the next: their ids go with the end.
        end = max(len(sentence) - before, 0)
        ending = [replace(output, text=output.text[:end])] if end else []
        yield [*held[:-1], *ending], sentence
        text = text[len(sentence) :]
        held = [TextDelta(text, () if end else output.token_ids)] if text else []
