"""What the fields of sampling may be: one range for each, whichever way a number comes in."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_aio.bounds import BOUNDS, MAX_STOP_CHARS, MAX_STOPS, MAX_TOKENS, check_sampling
from qwen_aio.core import Sampling, SamplingWish
from qwen_aio.errors import InvalidRequest, InvalidTask
from qwen_aio.tasks.loader import load_task
from qwen_aio.wire.engine import EngineRequestShape
from qwen_aio.wire.request import RunRequest
from tests.tasks.test_loader import write_task

ODD = [0, -0.0, 5e-324, 1e-46, 1e-38, 0.005, 0.01, 0.99, 1, 1 + 1e-9, 5, 5.0001, 1e30, 1e308, -1e-46, -1, 4096, 4097]
TASK = 'kind = "generation"\ntitle = {en = "x"}\n[sampling]\n'


def refused_by_engine(name: str, value: Any) -> bool:
    try:
        check_sampling(replace(Sampling(), **{name: value}), max_tokens=MAX_TOKENS)
    except InvalidRequest as exc:
        assert exc.param == name
        return True
    return False


def refused_by_wire(shape: type[RunRequest] | type[EngineRequestShape], name: str, value: Any) -> bool:
    body = {"text": "a", name: value} | ({"task": "chat"} if shape is EngineRequestShape else {})
    try:
        shape.read(json.dumps(body).encode())
    except InvalidRequest as exc:
        assert exc.param == name
        assert str(BOUNDS[name]) in exc.message
        return True
    return False


def refused_in_task(folder: Path, name: str, value: Any) -> bool:
    (folder / "task.toml").write_text(f"{TASK}{name} = {json.dumps(value)}\n", encoding="utf-8")
    with suppress(InvalidTask):
        load_task(folder)
        return False
    with pytest.raises(InvalidTask, match=rf"task\.toml:4: sampling\.{name}: must be {BOUNDS[name]}"):
        load_task(folder)
    return True


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("prompts") / "odd", TASK)


def test_every_field_that_is_a_number_has_bounds() -> None:
    assert set(BOUNDS) | {"stop"} == {field.name for field in fields(Sampling)}
    assert set(BOUNDS) | {"stop"} == {field.name for field in fields(SamplingWish)}


@given(name=st.sampled_from(sorted(BOUNDS)), value=st.sampled_from(ODD) | st.floats(-10, 10) | st.integers())
@example(name="seed", value=2**63 - 1)
@example(name="seed", value=2**63)
@example(name="top_k", value=1_000_000)
@example(name="top_k", value=1_000_001)
def test_wire_task_file_and_engine_refuse_the_same_numbers(task: Path, name: str, value: float) -> None:
    if name in ("max_tokens", "top_k", "seed"):
        value = int(value)
    is_refused = value not in BOUNDS[name]
    assert refused_by_engine(name, value) == is_refused
    assert refused_by_wire(RunRequest, name, value) == is_refused
    assert refused_by_wire(EngineRequestShape, name, value) == is_refused
    if name != "seed" and abs(value) < 2**63:  # no task has a seed, and no TOML a longer integer
        assert refused_in_task(task, name, value) == is_refused


@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
@pytest.mark.parametrize("written", ["1e999", "-1e999"])
def test_a_number_that_no_float_holds_is_refused_with_the_range(name: str, written: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}: must be {BOUNDS[name]}") as caught:
        RunRequest.read(f'{{"text": "a", "{name}": {written}}}'.encode())
    assert caught.value.param == name


@pytest.mark.parametrize("name", sorted(BOUNDS))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_in_no_bounds(name: str, value: float) -> None:
    assert refused_by_engine(name, value)


def test_a_task_file_may_not_say_nan(task: Path) -> None:
    for name in ("temperature", "top_p", "repetition_penalty"):
        for value in ("nan", "inf", "-inf"):
            (task / "task.toml").write_text(f"{TASK}{name} = {value}\n", encoding="utf-8")
            with pytest.raises(InvalidTask, match=rf"task\.toml:4: sampling\.{name}"):
                load_task(task)


@pytest.mark.parametrize(
    ("stop", "is_fine"),
    [
        (["a"] * MAX_STOPS, True),
        (["a"] * (MAX_STOPS + 1), False),
        (["你" * MAX_STOP_CHARS], True),
        (["你" * (MAX_STOP_CHARS + 1)], False),
        (["a", ""], False),
    ],
)
def test_stop_strings_are_few_and_short_wherever_they_come_from(task: Path, stop: list[str], is_fine: bool) -> None:
    assert refused_by_engine("stop", tuple(stop)) != is_fine
    (task / "task.toml").write_text(f"{TASK}stop = {json.dumps(stop)}\n", encoding="utf-8")
    if is_fine:
        assert RunRequest.parse({"text": "a", "stop": stop}).wish().stop == load_task(task).sampling.stop == tuple(stop)
        return
    with pytest.raises(InvalidTask, match=r"task\.toml:4: sampling\.stop"):
        load_task(task)
    with pytest.raises(InvalidRequest, match="stop"):
        RunRequest.parse({"text": "a", "stop": stop})


def test_nothing_asked_for_is_in_bounds_and_the_model_s_own_limit_counts() -> None:
    check_sampling(SamplingWish(), max_tokens=64)
    check_sampling(SamplingWish(max_tokens=64), max_tokens=64)
    with pytest.raises(InvalidRequest, match="max_tokens must be 1 to 64, not 65"):
        check_sampling(SamplingWish(max_tokens=65), max_tokens=64)
