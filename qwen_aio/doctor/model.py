"""The model of a start: which, by what engine, and whether its files are what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_aio.config import Settings
from qwen_aio.doctor.finding import Finding, Mark
from qwen_aio.doctor.start import Start
from qwen_aio.engine.choice import EngineChoice
from qwen_aio.engine.native.bindings import TORCH
from qwen_aio.models.find import ModelFolder
from qwen_aio.models.manifest import differences, read_manifest
from qwen_aio.startup.phases import phase
from qwen_aio.worker.loading import describe_model, golden_book
from qwen_aio.worker.precision_record import PrecisionRecord

MANY = 5  # differences that are named


@dataclass(frozen=True)
class HashState:
    """How the files of a model compare with what is recorded of them; `record` is empty where nothing is."""

    record: str
    wrong: Sequence[str] = ()
    remedy: str = ""


def model_findings(model: ModelFolder) -> list[Finding]:
    """Which one, and why."""
    return [Finding("ok", describe_model(model))]


def engine_findings(engine: EngineChoice) -> list[Finding]:
    """What computes the model, and why."""
    mark: Mark = "note" if engine.kind == "transformers" else "ok"
    return [Finding(mark, str(engine))]


def precision_findings(record: PrecisionRecord | None, settings: Settings) -> list[Finding]:
    """`record`: what is stated, or was chosen before."""
    if settings.precision == "int4" and (record is None or record.precision != "int4"):
        if record is not None and not settings.force_precision:
            return [Finding("problem", f"int4 is too far from fp32: {record.why}", "take int8, or --force-precision")]
        return [Finding("ok", "int4: a start compares it with fp32, once, and refuses it where it is far from it")]
    if record is not None:
        return [Finding("ok", str(record))]
    return [Finding("ok", "auto: a start compares int8 with fp32, once for a model and its golden cases")]


def hash_findings(state: HashState, *, folder: Path) -> list[Finding]:
    """A line for each file that is wrong."""
    if state.wrong:
        more = [f"{len(state.wrong) - MANY} more are wrong"] if len(state.wrong) > MANY else []
        return [Finding("problem", line, state.remedy) for line in (*state.wrong[:MANY], *more)]
    if not state.record:
        return [Finding("note", f"no hashes are recorded for {folder}", "a model that is pulled or imported has them")]
    return [Finding("ok", state.record)]


def read_hashes(start: Start) -> HashState:
    """Reads all files. Raises SetupError, OSError."""
    folder = start.model.path
    manifest = read_manifest(folder)
    if manifest is None:
        return _bundled(start) if start.model.is_bundled else HashState("")
    with phase("comparing the model's files with their hashes"):
        wrong = differences(folder, manifest)
    return HashState(f"{len(manifest.files)} files are as recorded", wrong, f"pull or copy {folder} again")


def _bundled(start: Start) -> HashState:
    """The bundled model has no manifest, but golden records, which name the hash of what they were made with."""
    book = golden_book(start.settings, start.model, start.model_sha, "fp32", kernel=TORCH)
    records = [record for task in start.tasks.values() if (record := book.read(task))]
    shipped = sorted({record.model_sha for record in records if record.is_shipped})
    if not shipped:
        return HashState("")
    if start.model_sha in shipped:
        return HashState(f"{start.model_sha}, as it shipped")
    wrong = f"the model's files have the hash {start.model_sha}, not {' or '.join(shipped)}, as they shipped"
    return HashState("", (wrong,), "install qwen-aio again")
