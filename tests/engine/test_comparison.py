"""The comparison, layer by layer, equals that of two whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qwen_aio.core import Precision
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine, load_model
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.model.linear import embedding_of
from qwen_aio.engine.native.bindings import TORCH
from qwen_aio.engine.quant.comparison import RoundedInTorch, compare
from qwen_aio.engine.quant.int8_file import input_levels
from qwen_aio.engine.quant.layerwise import LayerwisePass, LayerwiseSequence
from qwen_aio.engine.quant.quantise import Quantised, calibration_texts
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.engine.weights.model_weights import Int8Matrix, LayerWeights, ModelWeights
from tests.engine.conftest import MakeCheckpoint
from tests.engine.running import run, score, scores_of

TEXTS = ("刚收到货,有点小失望。", "thank you very much", "今天天气真好,我很开心。")
QUESTIONS = [score(text, "正面", "负面", "中性", "正") for text in TEXTS]
PRECISIONS: tuple[Precision, Precision] = ("fp32", "int8")
SHAPES = [
    {},
    {"tie_word_embeddings": False},
    {"vocab_size": 9000},
    {"vocab_size": 16_400, "hidden_size": 1024, "num_hidden_layers": 1},
]


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is of torch's products; so are the models that it is compared with."""
    monkeypatch.setenv("QWEN_AIO_KERNEL", "torch")


def logits(folder: Folder, model: Qwen2) -> torch.Tensor:
    """Of all rows of the sentences, by the whole model."""
    layerwise = LayerwisePass(calibration_texts(folder.tokenizer, folder.config), folder.config)
    states = layerwise.embed(model.embedding)
    for layer in model.layers:
        layerwise.run_layer(layer, states)
    return model.output(layerwise.final_states(model.norm, states))


def whole(path: Path, precision: Precision) -> Qwen2:
    model = load_model(Folder.open(path), max_context=128, threads=1, precision=precision).model
    assert isinstance(model, Qwen2)
    return model


def quantised(folder: Folder) -> Quantised:
    texts = calibration_texts(folder.tokenizer, folder.config)
    return Quantised(folder.checkpoint, folder.config, texts, levels=input_levels(TORCH))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.inference_mode()
def test_kl_is_that_of_the_whole_models(make_checkpoint: MakeCheckpoint, shape: dict[str, object]) -> None:
    path = make_checkpoint(**shape)
    folder = Folder.open(path)
    found = compare(
        folder.checkpoint, RoundedInTorch(quantised(folder), folder.config), folder.config, folder.tokenizer, []
    )
    exact, rounded = (logits(folder, whole(path, precision)).log_softmax(1) for precision in PRECISIONS)
    kl = (exact.exp() * (exact - rounded)).sum(1)
    assert found.num_tokens == len(kl)
    assert found.mean_kl == pytest.approx(float(kl.mean()), rel=1e-2, abs=1e-5)
    assert found.mean_kl > 1e-4  # the comparison means something


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_are_those_of_two_engines(make_checkpoint: MakeCheckpoint, shape: dict[str, object]) -> None:
    path = make_checkpoint(**shape)
    folder = Folder.open(path)
    found = compare(
        folder.checkpoint, RoundedInTorch(quantised(folder), folder.config), folder.config, folder.tokenizer, QUESTIONS
    )
    for side, precision in enumerate(PRECISIONS):
        engine = load_engine(path, EngineLimits(max_context=256, kv_mb=2), threads=1, precision=precision)
        outputs = run(engine, {str(number): question for number, question in enumerate(QUESTIONS)})
        for number, pair in enumerate(found.scores):
            expected = [label.logprob for label in scores_of(outputs[str(number)]).labels]
            assert [label.logprob for label in pair[side].labels] == pytest.approx(expected, abs=2e-3)
            assert [label.text for label in pair[side].labels] == list(QUESTIONS[number].continuations)


class Lost:
    """Weights that are not those of the checkpoint in one layer (ModelWeights)."""

    def __init__(self, weights: ModelWeights) -> None:
        self.embedding, self.output, self.norm = weights.embedding, weights.output, weights.norm
        self._weights = weights

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        layer = self._weights.layer(number)
        return layer.converted(lambda matrix: Int8Matrix.of(-matrix.dense())) if number == 1 else layer


def test_one_layer_that_is_lost_is_seen(checkpoint: Path) -> None:
    folder = Folder.open(checkpoint)
    found = compare(
        folder.checkpoint, RoundedInTorch(Lost(quantised(folder)), folder.config), folder.config, folder.tokenizer, []
    )
    assert found.mean_kl > 0.1


def test_a_shared_prefix_is_computed_once(checkpoint: Path) -> None:
    folder = Folder.open(checkpoint)
    beginning = list(range(100))

    def num_rows(*endings: int) -> int:
        layerwise = LayerwisePass([LayerwiseSequence(str(end), [*beginning, end]) for end in endings], folder.config)
        return sum(len(state) for state in layerwise.embed(embedding_of(folder.checkpoint.embedding())))

    assert num_rows(5, 6, 7) == num_rows(5) + 2
