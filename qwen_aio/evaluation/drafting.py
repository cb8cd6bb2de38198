"""Examples of a new decision task: which of them belong into its prompt, and is a model worth asking at all?

Part of the rows is the pool that the prompt's examples come from; prompts with none, one, two and four of each label
are asked about the rest. How good the best prompt is, is found by cross-validation: each fifth of the rows is judged by
the prompt that was best on the others, so that the choice does not flatter the figure. Naive Bayes learns the pool and
the other fifths, and is judged on the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from qwen_aio.bulk.table import RowTable
from qwen_aio.errors import InvalidRequest, InvalidSettings
from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.metrics import mcnemar
from qwen_aio.evaluation.naive_bayes import NaiveBayes
from qwen_aio.evaluation.share import Share
from qwen_aio.language import Language, language_of
from qwen_aio.tasks.drafted import Draft, Example, label_names
from qwen_aio.visible import has_visible

NO_EXAMPLES = "no examples"
SHOTS = (1, 2, 4)  # examples of each label in the prompt
NUM_DRAWS = 2  # of the examples, for each of SHOTS
MAX_SHOWN_CHARS = 100  # of an example in the prompt
MAX_LABELS, MAX_LABEL_CHARS = 20, 40
MIN_OF_LABEL = 10  # rows
MAX_ROWS = 600
POOL_SHARE = 0.3
NUM_PARTS = 5
NUM_GOLDEN = 6
SEED = 0


@dataclass(frozen=True)
class ExampleRow:
    """A row of the file with a label."""

    number: int
    text: str
    label: str


@dataclass(frozen=True)
class Material:
    """The rows of a file: those that examples are drawn from, and those that prompts are judged on."""

    labels: tuple[str, ...]  # texts
    pool: tuple[ExampleRow, ...]
    judged_on: tuple[ExampleRow, ...]

    @property
    def names(self) -> dict[str, str]:
        """Label text -> its name."""
        return dict(zip(self.labels, label_names(self.labels), strict=True))


@dataclass(frozen=True)
class PromptChoice:
    """What the rows say. Lists are (rows,), in the order of `judged_on`."""

    right: dict[str, list[bool]]  # prompt -> whether it is right
    best: str
    is_right: list[bool]  # of the prompt that was best on the other rows
    bayes_is_right: list[bool]
    majority: Share  # of the most frequent label

    @property
    def p_value(self) -> float:
        """McNemar's, of the prompt against naive Bayes."""
        pairs = list(zip(self.is_right, self.bayes_is_right, strict=True))
        return mcnemar(sum(one and not other for one, other in pairs), sum(other and not one for one, other in pairs))


def material(table: RowTable, text_column: str, label_column: str) -> Material:
    """Raises InvalidSettings for rows that are too few, and for labels that are too many or too long."""
    rows = [row for row in _labelled_rows(table, text_column, label_column) if has_visible(row.text) and row.label]
    rows = random.Random(SEED).sample(rows, min(len(rows), MAX_ROWS))
    by_label: dict[str, list[ExampleRow]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    _check_labels(by_label)
    pool = {row.number for of_label in by_label.values() for row in of_label[: round(POOL_SHARE * len(of_label))]}
    return Material(
        labels=tuple(sorted(by_label)),
        pool=tuple(row for row in rows if row.number in pool),
        judged_on=tuple(row for row in rows if row.number not in pool),
    )


def _labelled_rows(table: RowTable, text_column: str, label_column: str) -> Iterator[ExampleRow]:
    """Those that have both columns."""
    for row in table.rows():
        if row.fault is None:
            with suppress(InvalidRequest):
                yield ExampleRow(row.number, table.value(row, text_column), table.value(row, label_column).strip())


def _check_labels(by_label: dict[str, list[ExampleRow]]) -> None:
    if not 2 <= len(by_label) <= MAX_LABELS:
        raise InvalidSettings(f"the label column has {len(by_label)} values; a decision has 2 to {MAX_LABELS} labels")
    if len({label.casefold() for label in by_label}) < len(by_label):
        raise InvalidSettings("some labels differ in small and capital letters alone; write them alike")
    if too_long := [label for label in by_label if len(label) > MAX_LABEL_CHARS]:
        raise InvalidSettings(f"the label {too_long[0][:60]!r} is longer than {MAX_LABEL_CHARS} characters")
    if few := [f"{label!r} has {len(rows)}" for label, rows in by_label.items() if len(rows) < MIN_OF_LABEL]:
        raise InvalidSettings(f"a draft needs {MIN_OF_LABEL} rows of each label; {', '.join(few)}")


def drafts(name: str, found: Material) -> dict[str, Draft]:
    """What is in the prompt -> the draft, the one without examples first."""
    num_chinese = sum(language_of(row.text) == "zh" for row in found.pool)
    language: Language = "zh" if num_chinese > len(found.pool) / 2 else "en"
    made = {NO_EXAMPLES: Draft(name, found.labels, (), language)}
    for count in SHOTS:
        for draw in range(1, NUM_DRAWS + 1):
            examples = _examples(found, count, draw)
            if examples is not None:
                made[f"{count} of each, draw {draw}"] = Draft(name, found.labels, examples, language)
    return made


def _examples(found: Material, count: int, draw: int) -> tuple[Example, ...] | None:
    """`count` short texts of each label, mixed; None where there are not so many."""
    rng = random.Random(100 * count + draw)
    chosen = []
    for label in found.labels:
        short = [row for row in found.pool if row.label == label and len(row.text) <= MAX_SHOWN_CHARS]
        if len(short) < count:
            return None
        chosen += [Example(row.text, row.label) for row in rng.sample(short, count)]
    return tuple(rng.sample(chosen, len(chosen)))


def choose(found: Material, judged: Mapping[str, Sequence[Judged]]) -> PromptChoice:
    """`judged`: what each prompt said of the rows, in the order of `drafts`."""
    rows = found.judged_on
    right = {prompt: _right(rows, of_prompt) for prompt, of_prompt in judged.items()}
    is_right, bayes_is_right = [False] * len(rows), [False] * len(rows)
    for number in range(NUM_PARTS):
        held = range(number, len(rows), NUM_PARTS)
        others = [at for at in range(len(rows)) if at % NUM_PARTS != number]
        best = _best(right, others)
        bayes = _learned([*found.pool, *(rows[at] for at in others)])
        for at in held:
            is_right[at] = right[best][at]
            bayes_is_right[at] = bayes.label(rows[at].text) == rows[at].label
    counts = [sum(row.label == label for row in rows) for label in found.labels]
    best = _best(right, range(len(rows)))
    return PromptChoice(right, best, is_right, bayes_is_right, Share(max(counts), len(rows)))


def _right(rows: Sequence[ExampleRow], judged: Sequence[Judged]) -> list[bool]:
    """A row that was refused is not right."""
    numbers = {row.number for row in judged if row.is_right}
    return [row.number in numbers for row in rows]


def _best(right: dict[str, list[bool]], rows: Sequence[int]) -> str:
    """The prompt that is right most often; of equals the one with the fewest examples."""
    return max(right, key=lambda prompt: sum(right[prompt][at] for at in rows))


def _learned(rows: Sequence[ExampleRow]) -> NaiveBayes:
    return NaiveBayes([row.text for row in rows], [row.label for row in rows])


def golden_texts(found: Material, judged: Sequence[Judged]) -> list[str]:
    """Texts that the prompt gets right, the surest of each label in turn."""
    sure = sorted((row for row in judged if row.is_right), key=lambda row: -row.probability)
    by_label = [[row.text for row in sure if row.truth == name] for name in found.names.values()]
    turns = [texts[turn] for turn in range(NUM_GOLDEN) for texts in by_label if turn < len(texts)]
    return turns[:NUM_GOLDEN]


def choice_lines(found: Material, choice: PromptChoice) -> Iterator[str]:
    """What was measured, and whether the model is worth it."""
    total = len(found.judged_on)
    yield f"{len(found.pool)} rows are the pool of examples, {total} are judged; most frequent label {choice.majority}"
    for prompt, right in choice.right.items():
        yield f"{prompt:20s} right {Share(sum(right), total)}{'  <- taken' if prompt == choice.best else ''}"
    own, bayes = Share(sum(choice.is_right), total), Share(sum(choice.bayes_is_right), total)
    yield f"cross-validated      right {own}"
    yield f"naive Bayes          right {bayes}; McNemar's p = {choice.p_value:.3g}"
    if bayes.value > own.value:
        surely = "surely " if choice.p_value < 0.05 else ""
        yield f"naive Bayes is {surely}better on these rows: use it, or a larger model"
    elif own.value <= choice.majority.value:
        yield "the model is no better than always the most frequent label: use a larger model"
