"""Which precision is chosen, what is remembered of it, and what is said."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from qwen_aio.cli.loading import load_weights
from qwen_aio.cli.precision import choose_precision, is_settled
from qwen_aio.cli.verdict import Records, Verdict
from qwen_aio.config import Settings, load_settings
from qwen_aio.engine.linear import why_no_int8
from qwen_aio.models.find import BUNDLED, ModelFolder
from tests.engine.outliers import of_mlp, with_outliers

GOOD = ModelFolder(BUNDLED, "bundled", True, "asked for")
SHA = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "home"))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "int8", SHA)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The bundled model with weights of which int8 keeps nothing."""
    folder = with_outliers(BUNDLED, tmp_path_factory.mktemp("hopeless") / "model", of_mlp, factor=1e-4)
    return ModelFolder(folder, "hopeless", False, "asked for")


def settings(precision: str) -> Settings:
    return load_settings({"precision": precision})


def chosen(precision: str, records: Records, model: ModelFolder = GOOD, *, lack: str | None = None) -> Verdict:
    why = why_no_int8 if lack is None else lambda: lack
    return choose_precision(settings(precision), model, records, threads=1, why_no_int8=why)


def test_auto_takes_int8_where_the_model_stays_what_it_is(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        verdict = chosen("auto", records)
    assert verdict.precision == "int8"
    assert "labels of 12 golden cases equal, KL 0.00" in verdict.told
    assert verdict.told in caplog.text
    assert is_settled(settings("auto"), records)


def test_auto_takes_fp32_where_it_does_not_and_says_why(records: Records, hopeless: ModelFolder) -> None:
    verdict = chosen("auto", records, hopeless)
    assert verdict.precision == "fp32"
    assert "KL" in verdict.why
    assert not records.copy_path.exists()
    assert is_settled(settings("auto"), records)


def test_who_asks_for_int8_gets_it(records: Records, hopeless: ModelFolder) -> None:
    assert chosen("int8", records, hopeless).precision == "int8"
    assert records.read() is None


def test_a_verdict_is_remembered(records: Records) -> None:
    known = Verdict("fp32", "somebody found out")
    records.write(known)
    assert chosen("auto", records) == known


def test_what_was_asked_for_outweighs_a_verdict(records: Records) -> None:
    records.write(Verdict("fp32", "somebody found out"))
    assert chosen("int8", records).precision == "int8"
    records.write(Verdict("int8", "somebody found out"))
    assert chosen("fp32", records).precision == "fp32"


def test_a_verdict_of_another_version_of_torch_does_not_count(records: Records) -> None:
    records.write(Verdict("fp32", "long ago"))
    [path] = records.folder.glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"verdict": "1", "torch": "1.0"}}))
    assert records.read() is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"verdict": {"precision": "int3", "why": ""}, "versions": {}}', '{"verdict": 3}']
)
def test_a_damaged_verdict_does_not_count_and_is_told(
    records: Records, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    records.write(Verdict("fp32", "somebody found out"))
    [path] = records.folder.glob("*.json")
    path.write_text(content)
    assert records.read() is None
    assert "cannot be used and will be found anew" in caplog.text


def test_fp32_leaves_no_trace(records: Records) -> None:
    assert chosen("fp32", records).precision == "fp32"
    assert not records.folder.exists()


@pytest.mark.parametrize(("precision", "level"), [("auto", logging.INFO), ("int8", logging.WARNING)])
def test_a_machine_without_int8_computes_in_fp32_and_says_so(
    records: Records, precision: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        verdict = chosen(precision, records, lack="its processor is too old")
    assert verdict == Verdict("fp32", "int8 cannot be had, its processor is too old")
    assert (level, verdict.told) in [(record.levelno, record.getMessage()) for record in caplog.records]
    assert not records.folder.exists()


def test_a_folder_that_cannot_be_written_to_costs_only_the_memory_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    records = Records(tmp_path / "file" / "int8", SHA)
    assert chosen("auto", records).precision == "int8"
    assert "the verdict on the precision is not kept" in caplog.text
    assert not is_settled(settings("auto"), records)


def test_int8_is_settled_when_its_weights_are_kept(records: Records) -> None:
    assert not is_settled(settings("int8"), records)
    records.write(Verdict("int8", "somebody found out"))
    assert not is_settled(settings("auto"), records)
    records.copy_path.write_bytes(b"weights")
    assert is_settled(settings("int8"), records)
    assert is_settled(settings("auto"), records)


def test_the_weights_come_with_what_was_chosen_and_the_second_time_from_the_copy(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    model = ModelFolder(folder, "own", False, "asked for")
    first, second = (load_weights(settings("int8"), model, threads=1) for _ in range(2))
    assert first.verdict == second.verdict == Verdict("int8", "asked for, not compared with fp32")
    assert (tmp_path / "home" / "state" / "int8" / f"{first.sha}.safetensors").is_file()
