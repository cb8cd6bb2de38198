"""Which precision the weights get, and why.

`auto` lets the model read the golden cases and some sentences in fp32 and in int8, once for a model file and a set of
golden cases: int8 is taken where every label stays what it was and the next tokens are all but equally likely. Where
int8 cannot be had, fp32 is taken, whatever was asked for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import GoldenCase, Task
from qwen_aio.engine.requests import Score
from qwen_aio.models.find import ModelFolder
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.precision_record import PrecisionRecord, PrecisionRecords

if TYPE_CHECKING:
    from qwen_aio.engine.quant.comparison import Comparison
    from qwen_aio.engine.quant.int8_copy import CopyPlace

MAX_KL = 0.02  # nats, of int8's next tokens from those of fp32, on average
SMALL_BYTES = 2**26  # of a model that one thread compares in a second
log = logging.getLogger(__name__)


def choose_precision(
    settings: Settings,
    model: ModelFolder,
    records: PrecisionRecords,
    *,
    threads: int,
    why_no_int8: Callable[[], str | None],
) -> PrecisionRecord:
    """What the setting leads to with this model on this machine; told in the log. Raises InvalidModel, InvalidTask."""
    if settings.precision == "fp32":
        verdict = PrecisionRecord("fp32", "asked for")
    elif (why := why_no_int8()) is not None:
        verdict = PrecisionRecord("fp32", f"int8 cannot be had, {why}")
    elif settings.precision == "int8":
        verdict = PrecisionRecord("int8", "asked for, not compared with fp32")
    else:
        with records.alone():
            verdict = records.read() or _compare(settings, model, records, threads=1 if is_small(model) else threads)
    is_denied = verdict.precision != settings.precision == "int8"
    log.log(logging.WARNING if is_denied else logging.INFO, "%s", verdict.told)
    return verdict


def is_settled(settings: Settings, records: PrecisionRecords, *, why_no_int8: Callable[[], str | None]) -> bool:
    """Whether nothing would have to be computed for the weights of this precision."""
    if settings.precision == "fp32" or why_no_int8() is not None:
        return True
    if settings.precision == "int8":
        return copy_place(records).is_current()
    verdict = records.read()
    return verdict is not None and (verdict.precision == "fp32" or copy_place(records).is_current())


def digest_of_questions(settings: Settings) -> str:
    """Twelve hex digits over what `auto` asks with these tasks, and how it reads the answers. Raises InvalidTask."""
    asked = [(_asked(task, case), task.neutral, task.neutral_below) for task, case in _cases(settings)]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


def copy_place(records: PrecisionRecords) -> CopyPlace:
    """Where the int8 weights are, or will be."""
    # Here and not above: importing torch takes seconds, and --help should not.
    from qwen_aio.engine.quant.int8_copy import CopyPlace

    return CopyPlace(records.copy_path, records.model_sha)


def is_small(model: ModelFolder) -> bool:
    """Whether comparing takes no longer than starting a process for it."""
    return sum(path.stat().st_size for path in model.path.glob("*.safetensors")) < SMALL_BYTES


def _compare(settings: Settings, model: ModelFolder, records: PrecisionRecords, *, threads: int) -> PrecisionRecord:
    """Let the model read in both precisions, and judge. Verdict and int8 weights are kept.

    The weights also if they do not serve: others may be reading them, or want them against the verdict.
    """
    from qwen_aio.engine.load import compare_precisions

    log.info("comparing int8 with fp32; this is done once for a model and its golden cases")
    cases = _cases(settings)
    questions = [_asked(*case) for case in cases]
    found = compare_precisions(model.path, questions, threads=threads, place=copy_place(records))
    verdict = _judged([task for task, _ in cases], found)
    records.write(verdict)
    return verdict


def _cases(settings: Settings) -> list[tuple[Task, GoldenCase]]:
    """Of all decision tasks. Raises InvalidTask."""
    tasks = load_tasks(prompts_dir(settings)).values()
    return [(task, case) for task in tasks if task.kind == "decision" for case in task.golden]


def _asked(task: Task, case: GoldenCase) -> Score:
    return Score(PromptTemplate(task).prompt(case.text), tuple(label.text for label in task.labels))


def _judged(tasks: Sequence[Task], found: Comparison) -> PrecisionRecord:
    """`tasks` are those of each pair of scores."""
    num_changed = sum(
        decide(task, in_fp32).label != decide(task, in_int8).label
        for task, (in_fp32, in_int8) in zip(tasks, found.scores, strict=True)
    )
    labels = (
        f"{num_changed} of {len(tasks)} golden labels change in int8"
        if num_changed
        else (f"labels of {len(tasks)} golden cases equal")
    )
    told = f"{labels}, KL {found.mean_kl:.4f} over {found.num_tokens} tokens (checked {datetime.now(UTC).date()})"
    is_close = not num_changed and found.mean_kl < MAX_KL  # false for what is not a number
    return PrecisionRecord("int8" if is_close else "fp32", told)
