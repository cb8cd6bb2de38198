"""The message on memory before any is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_aio.config import load_settings
from qwen_aio.engine.config import ModelConfig
from qwen_aio.machine.memory import AvailableMemory
from qwen_aio.models.find import BUNDLED, ModelFolder
from qwen_aio.worker import memory_need
from qwen_aio.worker.memory_need import FORK_MB, LIGHT_MB, PROCESS_MB, MemoryNeed, memory_message, need_of, sized
from tests.engine.test_config import PLAIN


@pytest.fixture
def half_billion(tmp_path: Path) -> ModelFolder:
    """Of Qwen1.5-0.5B's shape, as far as config.json goes."""
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    return ModelFolder(tmp_path, "half", False, "asked for")


def need(model: ModelFolder, *, num_workers: int = 0, shares_weights: bool = False, **flags: str) -> MemoryNeed:
    settings = load_settings({"kv_mb": "512", **flags})
    return need_of(settings, model, num_workers=num_workers, shares_weights=shares_weights)


def test_the_numbers_of_a_model_are_counted_as_they_are_stored() -> None:
    stored = sum(
        len(range(*entry["data_offsets"])) // 2
        for name, entry in header(BUNDLED / "model.safetensors").items()
        if name != "__metadata__"
    )
    assert ModelConfig.load(BUNDLED).num_weights == pytest.approx(stored, rel=0.01)


def header(path: Path) -> dict[str, dict]:
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def test_one_server_needs_its_weights_its_keys_and_values_and_itself(half_billion: ModelFolder) -> None:
    assert need(half_billion, precision="int8").total("int8") == 442 + 512 + PROCESS_MB
    assert need(half_billion, precision="fp32").total("fp32") == 1769 + 512 + PROCESS_MB
    assert need(half_billion, num_workers=1, precision="int8").total("int8") == 442 + 512 + PROCESS_MB + LIGHT_MB
    assert need(half_billion).weights == {"int8": 442, "fp32": 1769}


def test_workers_that_share_weights_need_them_once(half_billion: ModelFolder) -> None:
    own = need(half_billion, num_workers=3, precision="int8")
    shared = need(half_billion, num_workers=3, shares_weights=True, precision="int8")
    assert own.total("int8") == pytest.approx(3 * (442 + 512 + PROCESS_MB) + LIGHT_MB, abs=3)
    assert shared.total("int8") == 442 + 3 * 512 + PROCESS_MB + 2 * FORK_MB + LIGHT_MB


BUNDLED_FOLDER = ModelFolder(BUNDLED, "bundled", True, "asked for")


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 64_000)


def have(monkeypatch: pytest.MonkeyPatch, mb: int) -> None:
    monkeypatch.setattr(memory_need, "available_memory", lambda: AvailableMemory(mb, is_limited=False))


@pytest.mark.usefixtures("plenty")
def test_a_small_model_takes_what_its_contexts_need_and_a_quarter_more() -> None:
    token_bytes = ModelConfig.load(BUNDLED).token_bytes
    running = 10 * 2048 * token_bytes / 2**20
    found = sized(load_settings({}), BUNDLED_FOLDER).kv_mb
    assert found is not None
    assert running * 1.25 < found < running * 1.35
    assert sized(load_settings({"max_context": "512"}), BUNDLED_FOLDER).kv_mb < found / 3


@pytest.mark.usefixtures("plenty")
def test_a_large_model_takes_no_more_than_512(half_billion: ModelFolder) -> None:
    assert sized(load_settings({}), half_billion).kv_mb == 512


def test_workers_share_a_quarter_of_the_available_memory(
    half_billion: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, 2400)
    assert sized(load_settings({}), half_billion, num_workers=3).kv_mb == 200
    have(monkeypatch, 10)
    assert sized(load_settings({}), half_billion, num_workers=3).kv_mb == 8


def test_a_number_that_was_given_stays(half_billion: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 10)
    assert sized(load_settings({"kv_mb": "900"}), half_billion, num_workers=3).kv_mb == 900


@pytest.mark.parametrize(
    ("precision", "mb", "is_enough"), [("auto", 1400, True), ("auto", 1300, False), ("fp32", 2000, False)]
)
def test_the_message_says_what_is_needed_and_available_and_whether_it_is_enough(
    half_billion: ModelFolder, precision: str, mb: int, is_enough: bool
) -> None:
    line = memory_message(need(half_billion, precision=precision), AvailableMemory(mb, is_limited=True))
    assert "2681 MB in fp32" in line
    assert f"{mb} MB are available within the limit of this container" in line
    assert ("which is not enough" in line) == (not is_enough)
    assert ("--precision int8" in line) == (precision == "fp32")
