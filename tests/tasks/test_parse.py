import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.result import LabelScore, Scores, Timings, Usage
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.parse import decide

SENTIMENT = load_tasks(Path("prompts"))["sentiment"]


def scores(*probabilities: float) -> Scores:
    labels = zip(SENTIMENT.labels, probabilities, strict=True)
    return Scores(tuple(LabelScore(label.text, math.log(p), 1) for label, p in labels), Usage(), Timings())


def test_the_best_label_wins_with_its_confidence():
    decision = decide(SENTIMENT, scores(0.02, 0.03, 0.9))
    assert (decision.label, decision.emotion, decision.confidence) == ("negative", "负面", "高")
    assert decision.text == "【情感】:负面 【置信】:高"
    assert decision.merged == "【😔 LLM 情感判断:负面|高置信】"
    assert not decision.abstained
    assert math.isclose(decision.label_mass, 0.95)
    assert math.isclose(decision.probability, 0.9 / 0.95)


def test_confidence_follows_the_thresholds_of_the_task():
    assert decide(SENTIMENT, scores(0.7, 0.1, 0.2)).confidence == "中"
    assert decide(SENTIMENT, scores(0.55, 0.1, 0.35)).confidence == "低"


def test_no_clear_label_is_neutral_and_says_so():
    decision = decide(SENTIMENT, scores(0.38, 0.27, 0.35))
    assert (decision.label, decision.abstained, decision.confidence) == ("neutral", True, "低")


@pytest.mark.parametrize(("probabilities", "best"), [((0.39, 0.23, 0.38), "positive"), ((0.33, 0.34, 0.33), "neutral")])
def test_the_probability_of_an_abstained_decision_is_that_of_its_best_label(probabilities, best):
    decision = decide(SENTIMENT, scores(*probabilities))
    assert (decision.label, decision.abstained, decision.best_label) == ("neutral", True, best)
    assert decision.probability == decision.scores[best] == max(decision.scores.values())


def test_a_small_label_mass_shows_that_the_model_meant_something_else():
    assert math.isclose(decide(SENTIMENT, scores(0.0002, 0.0003, 0.0095)).label_mass, 0.01)


@given(st.lists(st.floats(-700, 0), min_size=3, max_size=3))
def test_any_scores_give_a_well_formed_decision(logprobs):
    labels = tuple(LabelScore(label.text, p, 1) for label, p in zip(SENTIMENT.labels, logprobs, strict=True))
    decision = decide(SENTIMENT, Scores(labels, Usage(), Timings()))
    assert math.isclose(sum(decision.scores.values()), 1.0)
    assert decision.label in decision.scores
    assert decision.probability == decision.scores[decision.best_label] == max(decision.scores.values())
    assert decision.label == ("neutral" if decision.abstained else decision.best_label)
    assert 0 <= decision.label_mass <= 1
    assert decision.confidence in "高中低"
