"""Which precision the weights get, and why.

`auto` compares fp32 and int8 on the golden cases and some sentences, once for a model file and a
set of golden cases. It takes int8 where no label changes and the next tokens are all but equally
likely. A machine without int8 products computes in fp32, whatever was asked for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import GoldenCase, Task
from qwen_aio.engine.native.bindings import TORCH
from qwen_aio.engine.requests import Score
from qwen_aio.errors import InvalidSettings
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.phases import phase
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.precision_record import PrecisionRecord, PrecisionRecords

if TYPE_CHECKING:
    from qwen_aio.engine.quant.comparison import Comparison

MAX_KL = 0.02  # nats, of int8's next tokens from those of fp32, on average
WhyNot = Callable[[str], str | None]  # of a kernel
logger = logging.getLogger(__name__)


def why_no_int8(kernel: str) -> str | None:
    """Why `kernel` cannot compute in int8 here; None where it can."""
    if kernel != TORCH:
        return None
    # Here and not above: importing torch takes seconds.
    from qwen_aio.engine.model.linear import why_no_fbgemm

    return why_no_fbgemm()


def choose_precision(
    settings: Settings,
    model: ModelFolder,
    records: PrecisionRecords,
    *,
    threads: int,
    why_no_int8: WhyNot = why_no_int8,
) -> PrecisionRecord:
    """By the setting, for this model on this machine; logs which and why.

    Raises InvalidModel, InvalidSettings, InvalidTask.
    """
    record = _without_comparison(settings, why_no_int8(records.kernel))
    if record is None:
        with records.alone():
            record = records.read() or _compare(settings, model, records, threads=threads)
    is_denied = record.precision != settings.precision == "int8"
    logger.log(logging.WARNING if is_denied else logging.INFO, "%s", record)
    return record


def choose_foreign_precision(settings: Settings) -> PrecisionRecord:
    """Of the engine over transformers. Raises InvalidSettings for int8, which is ours alone."""
    if settings.precision == "int8":
        raise InvalidSettings(
            "--precision int8 goes with the engine for Qwen alone; transformers computes in fp32 or bf16",
            param="precision",
        )
    record = PrecisionRecord(
        "bf16" if settings.precision == "bf16" else "fp32",
        "what transformers computes in, unless bf16 is asked for" if settings.precision == "auto" else "asked for",
    )
    logger.info("%s", record)
    return record


def is_prepared(settings: Settings, records: PrecisionRecords, *, why_no_int8: WhyNot = why_no_int8) -> bool:
    """Whether loading the weights of this precision would compute nothing."""
    record = _without_comparison(settings, why_no_int8(records.kernel)) or records.read()
    return record is not None and (record.precision == "fp32" or records.weights.is_current())


def _without_comparison(settings: Settings, why_no_int8: str | None) -> PrecisionRecord | None:
    """The precision that the setting or the machine dictates; None where `auto` has a choice.

    Raises InvalidSettings for bf16.
    """
    if settings.precision == "bf16":
        raise InvalidSettings(
            "--precision bf16 goes with --engine transformers; the engine for Qwen computes in fp32 or int8",
            param="precision",
        )
    if settings.precision == "fp32":
        return PrecisionRecord("fp32", "asked for")
    if why_no_int8 is not None:
        return PrecisionRecord("fp32", f"int8 cannot be had, {why_no_int8}")
    return PrecisionRecord("int8", "asked for, not compared with fp32") if settings.precision == "int8" else None


def digest_of_questions(settings: Settings) -> str:
    """Twelve hex digits over the questions of `auto` and how it judges the answers.

    Raises InvalidTask.
    """
    asked = [(_asked(task, case), task.neutral, task.neutral_below) for task, case in _cases(settings)]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


def _compare(settings: Settings, model: ModelFolder, records: PrecisionRecords, *, threads: int) -> PrecisionRecord:
    """Compare both precisions. The record and the int8 weights are kept.

    The weights also when fp32 is chosen: other processes may be reading them, or be set to int8.
    """
    # Here and not above: importing torch takes seconds, and a process that finds a record needs none.
    from qwen_aio.engine.quant.preparing import compare_precisions

    logger.info("comparing int8 with fp32; this is done once for a model and its golden cases")
    cases = _cases(settings)
    questions = [_asked(*case) for case in cases]
    with phase("comparing int8 with fp32"):
        found = compare_precisions(model.path, questions, threads=threads, kept=records.weights)
    record = _judged([task for task, _ in cases], found)
    records.write(record)
    return record


def _cases(settings: Settings) -> list[tuple[Task, GoldenCase]]:
    """Of all decision tasks. Raises InvalidTask."""
    tasks = load_tasks(prompts_dir(settings)).values()
    return [(task, case) for task in tasks if task.kind == "decision" for case in task.golden]


def _asked(task: Task, case: GoldenCase) -> Score:
    return Score(PromptTemplate(task).prompt(case.text), tuple(label.text for label in task.labels))


def _judged(tasks: Sequence[Task], found: Comparison) -> PrecisionRecord:
    """`tasks` has the task of each pair of scores."""
    num_changed = sum(
        decide(task, in_fp32).label != decide(task, in_int8).label
        for task, (in_fp32, in_int8) in zip(tasks, found.scores, strict=True)
    )
    equal = f"labels of {len(tasks)} golden cases equal"
    labels = f"{num_changed} of {len(tasks)} golden labels change in int8" if num_changed else equal
    why = f"{labels}, KL {found.mean_kl:.4f} over {found.num_tokens} tokens (checked {datetime.now(UTC).date()})"
    is_close = not num_changed and found.mean_kl < MAX_KL  # false for what is not a number
    return PrecisionRecord("int8" if is_close else "fp32", why)
