"""Helpers that most tests of the engine use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qwen_aio.core import Control, Prompt, Sampling, Segments, Text
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output, Score, Work
from qwen_aio.engine.weights.model_weights import Int8Matrix
from qwen_aio.result import Completion, Scores, TextDelta

START, END = Control("<|im_start|>"), Control("<|im_end|>")
GREEDY = Sampling(max_tokens=12, temperature=0, repetition_penalty=1)
SYSTEM = "判断这段文字的情感,只答正面、负面或中性。"


def turn(role: str, text: str) -> Segments:
    return (START, Text(f"{role}\n{text}", can_cut=role == "user"), END, Text("\n"))


def prompt(text: str, *, system: str = SYSTEM, turns: tuple[Segments, ...] = ()) -> Prompt:
    return Prompt(turn("system", system), turns, (*turn("user", text), START, Text("assistant\n")))


def generate(text: str, sampling: Sampling = GREEDY) -> Generate:
    return Generate(prompt(text), sampling)


def score(text: str, *continuations: str) -> Score:
    return Score(prompt(text), continuations or ("正面", "负面", "中性"))


def run(engine: Engine, works: Mapping[str, Work]) -> dict[str, list[Output]]:
    """Everything at once, to the end."""
    for name, work in works.items():
        engine.add(name, work, arrived_s=engine.clock())
    return finish(engine)


def finish(engine: Engine) -> dict[str, list[Output]]:
    """Step until nothing is left; outputs by request. Integrity is checked after every step."""
    outputs: dict[str, list[Output]] = {}
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.request_id, []).append(output)
        engine.check_integrity()
    return outputs


def deltas_of(outputs: list[Output]) -> list[TextDelta]:
    return [output.item for output in outputs if isinstance(output.item, TextDelta)]


def completion_of(outputs: list[Output]) -> Completion:
    """The last output, and the only one of its kind."""
    *_, completion = items = [output.item for output in outputs]
    assert isinstance(completion, Completion)
    assert all(isinstance(item, TextDelta) for item in items[:-1])
    return completion


def text_of(outputs: list[Output]) -> str:
    return "".join(delta.text for delta in deltas_of(outputs))


def ids_of(outputs: list[Output]) -> list[int]:
    return [token for delta in deltas_of(outputs) for token in delta.token_ids]


def scores_of(outputs: list[Output]) -> Scores:
    [output] = outputs
    assert isinstance(output.item, Scores)
    return output.item


def logprobs_of(outputs: list[Output]) -> list[float]:
    return [label.logprob for label in scores_of(outputs).labels]


def dense(matrix: Int8Matrix) -> Tensor:
    """(out, in) in fp32"""
    return torch.from_numpy(matrix.dense())
