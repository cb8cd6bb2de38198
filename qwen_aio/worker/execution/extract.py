"""The most telling sentences of a text, chosen by the engine: a summary that is true by construction.

Each sentence is scored as if the model had written it after the prompt that holds the text. The mean
log probability of its tokens counts, so that a long sentence is at no disadvantage. A long text is a
tournament: the best two of every group play the next round.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_aio.result import Scores, Timings, Usage
from qwen_aio.tasks.sentences import sentences
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.engine import EngineClient

GROUP_CHARS = 600  # of the sentences scored in one pass: they stand in the prompt, and once more after it
NUM_KEPT = 2  # of each group
MAX_CHARS = 20_000  # a longer text is read at its beginning and its end, as a prompt that does not fit would be
SHORT_TEXT = 4  # sentences: a text with no more is summed up in one


async def telling_sentences(
    engine: EngineClient, request_id: str, template: PromptTemplate, text: str
) -> tuple[list[str], list[Scores]]:
    """The one or two most telling sentences of `text`, in its order and wording; and what scoring them cost.

    A text of one sentence is returned without scoring, a long one is cut, and what was not read is
    counted among the costs. Raises what scoring raises.
    """
    read = text if fits(text) else f"{text[: MAX_CHARS // 2]}\n{text[-MAX_CHARS // 2 :]}"
    left = list(dict.fromkeys(sentences(read))) or [text.strip()[:MAX_CHARS]]
    num_wanted = 1 if len(left) <= SHORT_TEXT else NUM_KEPT
    costs = [] if fits(text) else [await _unread(engine, template, text, read)]
    while len(left) > num_wanted:
        groups = _groups(left)
        num_kept = num_wanted if len(groups) == 1 else NUM_KEPT
        left = []
        for group in groups:
            scores = await engine.score(request_id, template.prompt("".join(group)), group)
            costs.append(scores)
            left += _best(scores, num_kept)
    return left, costs


def fits(text: str) -> bool:
    """Whether all of `text` is read."""
    return len(text) <= MAX_CHARS


async def _unread(engine: EngineClient, template: PromptTemplate, text: str, read: str) -> Scores:
    """No score, and the tokens that `text` has beyond `read`. Raises EngineStopped."""
    came_in, kept = [len(await engine.tokenize(template.prompt(each))) for each in (text, read)]
    cut = max(came_in - kept, 0)  # text at the two ends may fall into other tokens
    return Scores((), Usage(prompt_tokens=cut, cut_tokens=cut), Timings())


def _groups(candidates: Sequence[str]) -> list[list[str]]:
    """Neighbours together; more than are kept in every group but the last, so that each round leaves fewer."""
    groups: list[list[str]] = [[]]
    for sentence in candidates:
        if len(groups[-1]) > NUM_KEPT and sum(map(len, groups[-1])) + len(sentence) > GROUP_CHARS:
            groups.append([])
        groups[-1].append(sentence)
    return groups


def _best(scores: Scores, count: int) -> list[str]:
    """The `count` most probable ones by the token, in the order they were given."""
    ranked = sorted(scores.labels, key=lambda label: label.logprob / label.num_tokens, reverse=True)[:count]
    return [label.text for label in scores.labels if label in ranked]
