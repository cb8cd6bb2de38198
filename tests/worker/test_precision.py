"""Which precision is chosen, what is recorded, and what is logged."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.config import Settings, load_settings
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.engine.quant.comparison import Comparison
from qwen_aio.errors import InvalidSettings
from qwen_aio.models.find import BUNDLED, ModelFolder
from qwen_aio.worker.loading import load_weights, records_of
from qwen_aio.worker.precision import _judged, choose_precision, digest_of_questions, is_prepared, why_no_int8
from qwen_aio.worker.precision_record import PrecisionRecord, PrecisionRecords
from tests.engine.outliers import of_mlp, with_outliers
from tests.logged import WAITING, logged

GOOD = ModelFolder(BUNDLED, "bundled", True, "asked for")
SHA = "0123456789abcdef"
QUESTIONS = "ba9876543210"
KERNEL = choose_kernel(ModelConfig.load(BUNDLED)).name


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "home"))


@pytest.fixture
def records(tmp_path: Path) -> PrecisionRecords:
    return PrecisionRecords(tmp_path / "weights", SHA, KERNEL, QUESTIONS)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The bundled model with weights of which int8 keeps nothing."""
    folder = with_outliers(BUNDLED, tmp_path_factory.mktemp("hopeless") / "model", of_mlp, factor=1e-4)
    return ModelFolder(folder, "hopeless", False, "asked for")


def settings(precision: str) -> Settings:
    return load_settings({"precision": precision})


def chosen(
    precision: str, records: PrecisionRecords, model: ModelFolder = GOOD, *, lack: str | None = None
) -> PrecisionRecord:
    why = why_no_int8 if lack is None else lambda _: lack
    return choose_precision(settings(precision), model, records, threads=1, why_no_int8=why)


def is_known(precision: str, records: PrecisionRecords) -> bool:
    return is_prepared(settings(precision), records)


@pytest.fixture
def own_model(tmp_path: Path) -> ModelFolder:
    """With a folder of its own."""
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "model"))
    return ModelFolder(folder, "own", False, "asked for")


def test_auto_takes_int8_where_the_model_stays_what_it_is(
    records: PrecisionRecords, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        record = chosen("auto", records)
    assert record.precision == "int8"
    assert "labels of 17 golden cases equal, KL 0.00" in str(record)
    assert str(record) in caplog.text
    assert is_known("auto", records)


def test_auto_takes_fp32_where_it_does_not_and_says_why(records: PrecisionRecords, hopeless: ModelFolder) -> None:
    record = chosen("auto", records, hopeless)
    assert record.precision == "fp32"
    assert "KL" in record.why
    assert is_known("auto", records)


def test_int8_weights_stay_for_processes_that_read_them_or_are_set_to_int8(
    records: PrecisionRecords, hopeless: ModelFolder
) -> None:
    assert chosen("auto", records, hopeless).precision == "fp32"
    assert is_known("int8", records)


def test_the_setting_int8_is_followed(records: PrecisionRecords, hopeless: ModelFolder) -> None:
    assert chosen("int8", records, hopeless).precision == "int8"
    assert records.read() is None


def test_a_record_is_kept(records: PrecisionRecords) -> None:
    known = PrecisionRecord("fp32", "found by a test")
    records.write(known)
    assert chosen("auto", records) == known


def test_the_setting_outweighs_a_record(records: PrecisionRecords) -> None:
    records.write(PrecisionRecord("fp32", "found by a test"))
    assert chosen("int8", records).precision == "int8"
    records.write(PrecisionRecord("int8", "found by a test"))
    assert chosen("fp32", records).precision == "fp32"


@pytest.mark.parametrize("other", [{"verdict": "0"}, {"torch": "1.0"}, {"levels": 15}, {"recipe": "another"}])
def test_a_record_found_in_another_way_does_not_count(records: PrecisionRecords, other: dict[str, object]) -> None:
    records.write(PrecisionRecord("fp32", "long ago"))
    [path] = records.folder.glob("*.json")
    content = json.loads(path.read_text())
    assert content["versions"].keys() >= other.keys()
    content["versions"] |= other
    path.write_text(json.dumps(content))
    assert records.read() is None


def test_a_record_counts_for_the_questions_it_was_found_by_and_no_others(records: PrecisionRecords) -> None:
    first, second = records, PrecisionRecords(records.folder, SHA, KERNEL, "0" * 12)
    first.write(PrecisionRecord("fp32", "of the first"))
    assert second.read() is None
    second.write(PrecisionRecord("int8", "of the second"))
    assert first.read() == PrecisionRecord("fp32", "of the first")
    assert second.read() == PrecisionRecord("int8", "of the second")


def test_a_record_counts_for_the_kernel_it_was_found_with(records: PrecisionRecords) -> None:
    records.write(PrecisionRecord("fp32", "of the first"))
    assert PrecisionRecords(records.folder, SHA, TORCH, QUESTIONS).read() is None


needs_kernels = pytest.mark.skipif(KERNEL == TORCH, reason="int4 is computed by the C++ kernels")


@needs_kernels
def test_int4_is_taken_where_it_is_near_fp32_and_says_how_near(
    records: PrecisionRecords, own_model: ModelFolder
) -> None:
    record = chosen("int4", replace(records, rounded="int4"), own_model)
    assert record.precision == "int4"
    assert "of 17 golden" in record.why and "KL 0.0" in record.why
    assert records.read() is None  # it says nothing of int8


@needs_kernels
def test_int4_that_is_far_from_fp32_is_refused_unless_it_is_forced(
    records: PrecisionRecords, hopeless: ModelFolder
) -> None:
    in_int4 = replace(records, rounded="int4")
    with pytest.raises(InvalidSettings, match=r"too far from fp32 .* KL .* without --force-precision"):
        chosen("int4", in_int4, hopeless)
    forced = load_settings({"precision": "int4", "force_precision": "true"})
    assert is_prepared(forced, in_int4)  # the refusal has left everything
    record = choose_precision(forced, hopeless, in_int4, threads=1)
    assert record.precision == "int4" and "taken by --force-precision" in record.why


@needs_kernels
@pytest.mark.parametrize(("kl", "is_taken"), [(0.0999, True), (0.1, False), (float("nan"), False)])
def test_int4_is_taken_up_to_a_kl_of_a_tenth(kl: float, is_taken: bool) -> None:
    record = _judged([], Comparison((), mean_kl=kl, num_tokens=1), "int4")
    assert (record.precision == "int4") == is_taken


def test_int4_takes_the_kernels(own_model: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_KERNEL", TORCH)
    with pytest.raises(InvalidSettings, match=r"int4 is computed by the C\+\+ kernels alone; kernel torch: asked for"):
        load_weights(settings("int4"), own_model, threads=1)


def test_auto_never_takes_int4(records: PrecisionRecords) -> None:
    replace(records, rounded="int4").write(PrecisionRecord("int4", "found by a test"))
    assert chosen("auto", records).precision == "int8"


def test_the_digest_follows_what_is_asked_and_how_it_is_judged(tmp_path: Path) -> None:
    prompts = Path(shutil.copytree("prompts", tmp_path / "prompts"))
    own = load_settings({"prompts_dir": str(prompts)})
    task = prompts / "sentiment"

    def changed_by(name: str, old: str, new: str) -> bool:
        before, content = digest_of_questions(own), (task / name).read_text(encoding="utf-8")
        assert old in content
        (task / name).write_text(content.replace(old, new, 1), encoding="utf-8")
        return digest_of_questions(own) != before

    assert not changed_by("task.toml", "priority = 20", "priority = 30")
    golden = (task / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    assert changed_by("golden.jsonl", golden[0], '{"text": "another"}')
    assert changed_by("prompt.j2", "{{", "now: {{")
    assert changed_by("task.toml", "below = ", "below = 0.0 # ")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"verdict": {"precision": "int3", "why": ""}, "versions": {}}',
        '{"verdict": {"precision": "int8", "why": null}, "versions": {}}',
        '{"verdict": 3}',
    ],
)
def test_a_damaged_record_does_not_count_and_is_logged(
    records: PrecisionRecords, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    records.write(PrecisionRecord("fp32", "found by a test"))
    [path] = records.folder.glob("*.json")
    path.write_text(content)
    assert records.read() is None
    assert "cannot be used and will be made anew" in caplog.text


def test_a_record_that_cannot_be_written_leaves_nothing_behind(records: PrecisionRecords) -> None:
    records.write(PrecisionRecord("int8", "found by a test"))
    [path] = records.folder.glob("*.json")
    path.unlink()
    path.mkdir()
    records.write(PrecisionRecord("int8", "found by a test"))
    assert list(records.folder.iterdir()) == [path]


def test_fp32_leaves_no_trace(records: PrecisionRecords) -> None:
    assert chosen("fp32", records).precision == "fp32"
    assert not records.folder.exists()


@pytest.mark.parametrize(("precision", "level"), [("auto", logging.INFO), ("int8", logging.WARNING)])
def test_a_machine_without_int8_computes_in_fp32_and_says_so(
    records: PrecisionRecords, precision: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        record = chosen(precision, records, lack="its processor is too old")
    assert record == PrecisionRecord("fp32", "int8 cannot be had, its processor is too old")
    assert (level, str(record)) in [(line.levelno, line.getMessage()) for line in caplog.records]
    assert is_prepared(settings(precision), records, why_no_int8=lambda _: "its processor is too old")
    assert not records.folder.exists()


def test_a_folder_that_cannot_be_written_to_costs_only_the_memory_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    records = PrecisionRecords(tmp_path / "file" / "weights", SHA, KERNEL, QUESTIONS)
    assert chosen("auto", records).precision == "int8"
    assert "the precision record is not kept" in caplog.text
    assert not is_known("auto", records)


def test_int8_is_prepared_when_weights_that_can_be_used_are_kept(
    records: PrecisionRecords, own_model: ModelFolder
) -> None:
    assert not is_known("int8", records)
    records.write(PrecisionRecord("int8", "found by a test"))
    assert not is_known("auto", records)
    load_weights(settings("int8"), own_model, threads=1)
    made = records_of(settings("int8"), own_model)
    assert is_known("int8", made)
    shutil.copy(made.weights.path, records.weights.path)
    assert not is_known("auto", records)  # it is another model's
    content = made.weights.path.read_bytes()
    for damaged in (content[:-1], b"rubbish", b""):
        made.weights.path.write_bytes(damaged)
        assert not is_known("int8", made)


def test_the_weights_come_with_what_was_chosen_and_the_second_time_from_the_copy(own_model: ModelFolder) -> None:
    first, second = (load_weights(settings("int8"), own_model, threads=1) for _ in range(2))
    assert (
        first.precision_record
        == second.precision_record
        == PrecisionRecord("int8", "asked for, not compared with fp32")
    )
    weights = records_of(settings("int8"), own_model).weights
    assert weights.path.name.startswith(first.sha)
    assert weights.find() is not None


def test_one_of_many_quantises_and_the_others_wait_for_its_copy(own_model: ModelFolder) -> None:
    records = records_of(settings("int8"), own_model)
    with logged(WAITING) as waiting, ThreadPoolExecutor(1) as other:
        with records.alone():
            loading = other.submit(load_weights, settings("int8"), own_model, threads=1)
            assert waiting.wait(60)
            assert not records.weights.path.exists()
        assert loading.result().precision_record.precision == "int8"
        assert records.weights.path.exists()


def test_a_process_that_finds_a_copy_does_not_wait(own_model: ModelFolder) -> None:
    first = load_weights(settings("int8"), own_model, threads=1)
    with logged(WAITING) as waiting, records_of(settings("int8"), own_model).alone():
        assert load_weights(settings("int8"), own_model, threads=1).sha == first.sha
    assert not waiting.is_set()
