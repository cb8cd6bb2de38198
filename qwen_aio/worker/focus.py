"""The effect of a focus word on neutral sentences that contain it.

A focus word acts only on a text that contains it, so each sentence quotes it; only the hint in the
prompt differs between the two decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwen_aio.core import Task
from qwen_aio.result import Decision
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.engine import EngineClient

SENTENCES = (  # neutral with any word
    "今天星期三，黑板上写着“{}”。",
    "“{}”在词典的第五页。",
    "会议改到下午三点，题目里有“{}”两个字。",
    'It is Wednesday, and the sign says "{}".',
    'The word "{}" is on page five of the dictionary.',
)


@dataclass(frozen=True)
class FocusEffect:
    """One word in one sentence, as a plain word and as a focus word."""

    word: str
    sentence: str
    without: Decision
    with_it: Decision

    @property
    def shift(self) -> float:
        """The largest change of a label's probability."""
        return max(abs(share - self.without.scores[name]) for name, share in self.with_it.scores.items())

    @property
    def is_flip(self) -> bool:
        """Whether the hint changes the label."""
        return self.without.label != self.with_it.label


async def focus_effects(engine: EngineClient, task: Task) -> list[FocusEffect]:
    """Every focus word of a decision task in every sentence. Raises as the engine."""
    effects = []
    for word in task.focus_words:
        others = replace(task, focus_words=tuple(other for other in task.focus_words if other != word))
        for sentence in (form.format(word) for form in SENTENCES):
            without, with_it = await _decide(engine, others, sentence), await _decide(engine, task, sentence)
            effects.append(FocusEffect(word, sentence, without, with_it))
    return effects


async def _decide(engine: EngineClient, task: Task, text: str) -> Decision:
    prompt = PromptTemplate(task).prompt(text)
    return decide(task, await engine.score(f"focus-{task.name}", prompt, [label.text for label in task.labels]))
