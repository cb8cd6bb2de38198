"""`python -m training.calibrate --data DIR`: how the bundled model's probabilities are read, for each shipped decision.

Writes prompts/sentiment/calibration.json (a temperature by language) and prompts/safety/calibration.json (thresholds).
To be run once after the weights have changed, before `python -m training.golden`. Texts that benchmarks/safety measures
with are left out; temperatures are fitted on one half of the dev rows, so that the other half can judge them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Task
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.service import EngineService
from qwen_aio.language import language_of
from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.safety import WINDOW_CHARS
from training import corpus, safety

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
TEXTS_AT_ONCE = 128
TEMPERATURES = np.geomspace(0.4, 2.5, 85)
# Shares of harmless messages of one language on which one label may take effect.
ORDINARY_ALARMS = 0.003
NEIGHBOUR_ALARMS = 0.05
LEAST = 0.5  # a message that is more probably harmless is harmless
NUM_ORDINARY = 5_000  # a language, at most
NUM_DRAWN = 8_000
DRAWN_SEED = 977  # not the recipe's
LANGUAGES = ("zh", "en")

Probabilities = NDArray[np.float64]  # (texts, labels), in the task's order


def temperature(probabilities: Probabilities, right: NDArray[np.int64]) -> float:
    """The one of TEMPERATURES with the least mean negative log-likelihood (Guo et al. 2017); `right` are columns."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    losses = []
    for candidate in TEMPERATURES:
        scaled = logs / candidate
        normal = np.logaddexp.reduce(scaled, axis=1)
        losses.append(float((normal - scaled[np.arange(len(right)), right]).mean()))
    return float(TEMPERATURES[int(np.argmin(losses))])


def threshold(ordinary: Probabilities, neighbours: Probabilities) -> float:
    """LEAST, or the probability that only the allowed shares of harmless messages reach; each (messages,)."""
    least = max(LEAST, _reached_by(ordinary, ORDINARY_ALARMS), _reached_by(neighbours, NEIGHBOUR_ALARMS))
    return min(float(np.ceil(least * 1000) + 1) / 1000, 0.999)


def _reached_by(probabilities: Probabilities, share: float) -> float:
    return float(np.quantile(probabilities, 1 - share, method="higher"))


async def fit_sentiment(engine: EngineService, task: Task, data: Path) -> dict[str, object]:
    names = [label.name for label in task.labels]
    rows = [
        row
        for row in corpus.sentiment_rows(data, "dev")
        if row.source != corpus.NOT_JUDGED and corpus.is_fitted_on(row.text)
    ]
    found = {}
    for language in LANGUAGES:
        chosen = [row for row in rows if (language_of(row.text) or "en") == language and row.text.strip()]
        probabilities = await _probabilities(engine, task, [row.text for row in chosen])
        found[language] = round(temperature(probabilities, np.array([names.index(row.label) for row in chosen])), 3)
        print(f"sentiment {language}: temperature {found[language]} from {len(chosen)} rows")
    return {"temperature": found}


async def fit_safety(engine: EngineService, task: Task, data: Path) -> dict[str, object]:
    """A threshold for each language and label."""
    assert task.safety
    names = [label.name for label in task.labels]
    thresholds: dict[str, dict[str, float]] = {language: {} for language in LANGUAGES}
    for language in LANGUAGES:
        ordinary = await _probabilities(engine, task, _ordinary(data, language))
        neighbours = await _probabilities(engine, task, _neighbours(task.safety.harmless, language))
        for label in task.safety.replies:
            column = names.index(label)
            needed = threshold(ordinary[:, column], neighbours[:, column])
            print(f"safety {language}: {label} from {needed} ({len(ordinary)} ordinary, {len(neighbours)} neighbours)")
            thresholds[language][label] = needed
    return {"thresholds": thresholds}


def _ordinary(data: Path, language: str) -> list[str]:
    """Dev rows and users' turns of dialogues that training does not use, but for those of benchmarks/safety."""
    texts = [row.text for row in corpus.sentiment_rows(data, "dev")]
    for row in corpus.read_rows(data / corpus.INSTRUCTION_FILES["zh"]):
        if row["src"] in ("lccc_toy", "kdconv", "crosswoz"):
            texts += [text for speaker, text in row["turns"][:1] if speaker == "user"]
    suitable = (text for text in texts if text.strip() and (language_of(text) or "en") == language)
    free = {corpus.fingerprint(text): text for text in suitable if not corpus.is_held_out(text)}
    return [free[mark][:WINDOW_CHARS] for mark in sorted(free)[:NUM_ORDINARY]]


def _neighbours(harmless: str, language: str) -> list[str]:
    drawn = safety.messages(NUM_DRAWN, DRAWN_SEED)
    texts = ("\n".join((*earlier, text)) for text, label, earlier in drawn if label == harmless)
    return [text for text in texts if (language_of(text) or "en") == language and not corpus.is_held_out(text)]


async def _probabilities(engine: EngineService, task: Task, texts: Sequence[str]) -> Probabilities:
    """As the model says them, before any temperature."""
    template, labels = PromptTemplate(task), [label.text for label in task.labels]
    found: list[list[float]] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        scored = await asyncio.gather(*(engine.score("calibrate", template.prompt(text), labels) for text in part))
        found += [list(decide(task, scores).scores.values()) for scores in scored]
    return np.array(found)


async def calibrate(model: Path, data: Path, prompts: Path) -> None:
    """Replace the calibrations of `prompts` by those of `model`."""
    tasks, sha = load_tasks(prompts), model_sha(model)
    engine = EngineService(load_engine(model, EngineLimits(), threads=2, precision="fp32"))
    engine.start()
    try:
        fitted = {
            "sentiment": await fit_sentiment(engine, tasks["sentiment"], data),
            "safety": await fit_safety(engine, tasks["safety"], data),
        }
    finally:
        await engine.close()
    for name, found in fitted.items():
        _write(prompts / name / "calibration.json", {sha: found})


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    asyncio.run(calibrate(arguments.model, arguments.data, PROMPTS))
