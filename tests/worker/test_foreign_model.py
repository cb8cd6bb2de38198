"""What a process decides about a model of another architecture before it loads it: precision, memory, hash, sharing."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_aio.cli.main import main
from qwen_aio.config import Settings, load_settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.memory import AvailableMemory
from qwen_aio.models.find import BUNDLED, CHAT_FILES, ModelFolder, model_sha
from qwen_aio.worker.loading import choose_model, describe_model, engine_of, golden_book, load_weights
from qwen_aio.worker.memory_need import PROCESS_MB, TRANSFORMERS_MB, memory_message, need_of, sized
from qwen_aio.worker.precision import choose_foreign_precision
from tests.e2e.processes import free_port
from tests.engine.foreign.families import FAMILIES, make_checkpoint_of


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = make_checkpoint_of(FAMILIES["phi"], tmp_path_factory.mktemp("phi"), max_position_embeddings=4096)
    return ModelFolder(folder, "phi", False, "asked for")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def of(model: ModelFolder, **values: str) -> Settings:
    return load_settings({"model": str(model.path), "kv_mb": "64", **values})


def test_it_computes_in_fp32_or_in_bf16(phi: ModelFolder) -> None:
    assert choose_foreign_precision(of(phi)).precision == "fp32"
    assert choose_foreign_precision(of(phi, precision="fp32")).precision == "fp32"
    assert load_weights(of(phi, precision="bf16"), phi, threads=1).precision_record.precision == "bf16"
    with pytest.raises(InvalidSettings, match="fp32 or bf16"):
        load_weights(of(phi, precision="int8"), phi, threads=1)


def test_bf16_is_not_for_our_engine() -> None:
    settings = load_settings({"model": "bundled", "precision": "bf16"})
    with pytest.raises(InvalidSettings, match="--engine transformers"):
        load_weights(settings, choose_model(settings), threads=1)


def test_its_memory_is_counted_by_its_files_and_its_precision(phi: ModelFolder) -> None:
    need = need_of(of(phi), phi)
    assert need.rest == PROCESS_MB + TRANSFORMERS_MB
    assert need.kv == 64 + 16  # and what a step copies
    assert "--precision bf16, " in memory_message(need, AvailableMemory(1, is_limited=True))
    assert [*need.weights] == ["fp32"]
    need = need_of(of(phi, precision="bf16"), phi)
    assert [*need.weights] == ["bf16"]
    assert "--precision" not in memory_message(need, AvailableMemory(1, is_limited=True))
    assert sized(load_settings({"model": str(phi.path)}), phi).kv_mb == 20  # ten contexts, and what is pinned


def test_its_hash_covers_the_chat_template(phi: ModelFolder, tmp_path: Path) -> None:
    sha = load_weights(of(phi), phi, threads=1).sha
    assert sha == model_sha(phi.path, more=CHAT_FILES) != model_sha(phi.path)
    (phi.path / "chat_template.jinja").write_text(FAMILIES["phi"].template + " ")
    try:
        assert model_sha(phi.path, more=CHAT_FILES) != sha
    finally:
        (phi.path / "chat_template.jinja").unlink()


def test_its_golden_records_are_its_own(phi: ModelFolder) -> None:
    book = golden_book(of(phi), phi, "0" * 16, "fp32", kernel="torch")
    assert (book.precision, book.shipped) == ("fp32 by transformers", None)
    bundled = ModelFolder(BUNDLED, "bundled", True, "asked for")
    assert golden_book(of(bundled, engine="transformers"), bundled, "0" * 16, "fp32", kernel="torch").shipped is None
    assert golden_book(of(bundled), bundled, "0" * 16, "fp32", kernel="avx2").shipped is not None


def test_a_model_that_our_engine_computes_stays_with_it() -> None:
    bundled = ModelFolder(BUNDLED, "bundled", True, "asked for")
    assert engine_of(of(bundled), bundled).kind == "qwen"
    assert "demonstration" in describe_model(bundled)


def test_a_cluster_cannot_share_its_weights(phi: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    ports = [f"--{name}={free_port()}" for name in ("port", "balancer-port", "worker-port")]
    assert main(["cluster", "--model", str(phi.path), "--workers", "2", "--share-weights", "on", *ports]) != 0
    assert "workers cannot share what transformers loads" in capsys.readouterr().err


def test_there_is_nothing_to_tune(phi: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", str(phi.path), "--out", str(tmp_path / "out.toml")]) != 0
    assert "it has nothing to fit of transformers" in capsys.readouterr().err
