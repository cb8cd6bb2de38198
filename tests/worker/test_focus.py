from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.core import Prompt
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.focus import SENTENCES, focus_effects
from tests.fakes import FakeEngine, user_text

TASK = replace(load_tasks(Path("prompts"))["sentiment"], focus_words=("不值", "late"))


class Attentive(FakeEngine):
    """Takes a sentence for negative where its prompt names 不值 as a focus word."""

    async def score(self, request_id, prompt: Prompt, continuations):
        is_named = user_text(prompt).startswith("注意:不值\n")
        neutral, negative = (0.2, 0.7) if is_named else (0.8, 0.1)
        self.probabilities = {"正面": 0.1, "中性": neutral, "负面": negative}
        return await super().score(request_id, prompt, continuations)


async def test_every_word_is_tried_in_every_sentence_with_and_without_being_a_focus_word():
    engine = Attentive()
    effects = await focus_effects(engine, TASK)
    assert [(effect.word, effect.sentence) for effect in effects] == [
        (word, sentence.format(word)) for word in TASK.focus_words for sentence in SENTENCES
    ]
    assert len(engine.prompts) == 2 * len(effects)
    of_first, of_second = effects[: len(SENTENCES)], effects[len(SENTENCES) :]
    assert all(effect.is_flip and effect.shift == pytest.approx(0.6) for effect in of_first)
    assert not any(effect.is_flip or effect.shift for effect in of_second)


async def test_a_task_without_focus_words_asks_nothing():
    engine = FakeEngine()
    assert await focus_effects(engine, replace(TASK, focus_words=())) == []
    assert engine.prompts == []
