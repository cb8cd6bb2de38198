"""int8 weights of a checkpoint: close to it, two passes where needed, little in memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.building import build_qwen2
from qwen_aio.engine.model.linear import (
    Fp32Embedding,
    Fp32Linear,
    Int8Embedding,
    Int8Linear,
)
from qwen_aio.engine.quant.comparison import RoundedInTorch, compare
from qwen_aio.engine.quant.int8_file import BYTE_LEVELS
from qwen_aio.engine.quant.quantise import Quantised, calibration_texts
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.engine.weights.model_weights import Int8Matrix, LayerWeights, ModelWeights
from tests.engine.conftest import MakeCheckpoint
from tests.engine.outliers import of_mlp, of_norms, with_outliers
from tests.engine.running import dense

LARGE_VOCABULARY = {"vocab_size": 70_000, "hidden_size": 256, "dtype": torch.bfloat16}
MOST_KL = 0.02  # what `auto` asks for
EVERY_MATRIX = {"qkv", "attention_output", "gate_up", "down"}
# of a small model without outliers, where heavy tails are rounded noticeably
TWO_PASS_ANYWAY = {"down"}


def quantised(folder: Path) -> Quantised:
    return Quantised(*_parts(folder), levels=BYTE_LEVELS)


class Coarse(Quantised):
    """Without any protection against outliers."""

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        return super().layer(number).converted(lambda matrix: replace(matrix, two_pass=False))


def two_pass_names(folder: Path) -> list[set[str]]:
    """The names of each layer's two-pass matrices."""
    weights = quantised(folder)
    layers = [weights.layer(number) for number in range(ModelConfig.load(folder).num_layers)]
    return [
        {name for name, part in vars(layer).items() if isinstance(part, Int8Matrix) and part.two_pass}
        for layer in layers
    ]


def mean_kl(folder: Path, weights: ModelWeights) -> float:
    opened = Folder.open(folder)
    rounded = RoundedInTorch(weights, opened.config)
    return compare(opened.checkpoint, rounded, opened.config, opened.tokenizer, []).mean_kl


@pytest.fixture(scope="module")
def plain(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(hidden_size=128, intermediate_size=256)


def test_every_weight_is_within_half_a_step_of_its_own(plain: Path) -> None:
    exact, rounded = Folder.open(plain).checkpoint.layer(0), quantised(plain).layer(0)
    for name in EVERY_MATRIX:
        matrix: Int8Matrix = getattr(rounded, name)
        assert (abs(getattr(exact, name) - matrix.dense()) <= 0.501 * matrix.scales[:, None]).all()


def test_without_outliers_only_heavy_tailed_inputs_get_two_passes_in_a_small_model(plain: Path) -> None:
    assert two_pass_names(plain) == [TWO_PASS_ANYWAY] * 2


def test_a_large_model_without_outliers_gets_one_pass(make_checkpoint: MakeCheckpoint) -> None:
    assert two_pass_names(make_checkpoint(**LARGE_VOCABULARY)) == [set(), set()]


@pytest.mark.parametrize(("make", "names"), [(of_mlp, {"down"}), (of_norms, {"qkv", "gate_up"})])
def test_matrices_that_meet_outliers_get_two_passes(plain: Path, tmp_path: Path, make: object, names: set[str]) -> None:
    folder = with_outliers(plain, tmp_path / "model", make, factor=30)
    assert two_pass_names(folder) == [names | TWO_PASS_ANYWAY] * 2
    assert mean_kl(folder, quantised(folder)) < MOST_KL
    assert mean_kl(folder, Coarse(*_parts(folder), levels=BYTE_LEVELS)) > 3 * mean_kl(folder, quantised(folder))


def test_a_small_embedding_stays_in_fp32_and_is_one_with_a_tied_output(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    model = build_qwen2(quantised(folder), ModelConfig.load(folder), num_positions=64)
    assert isinstance(model.embedding, Fp32Embedding) and isinstance(model.output, Fp32Linear)
    assert model.output.weight.data_ptr() == model.embedding.weight.data_ptr()


def test_qwen3_is_close_to_itself(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint(config=Qwen3Config, hidden_size=128, intermediate_size=256, head_dim=48)
    assert 0 < mean_kl(folder, quantised(folder)) < MOST_KL


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_embedding_is_in_int8_block_by_block_as_if_in_one_go(
    make_checkpoint: MakeCheckpoint, tied: bool
) -> None:
    folder = make_checkpoint(**LARGE_VOCABULARY, tie_word_embeddings=tied)
    checkpoint, config = Folder.open(folder).checkpoint, ModelConfig.load(folder)
    model = build_qwen2(quantised(folder), config, num_positions=64)
    assert isinstance(model.embedding, Int8Embedding) and isinstance(model.output, Int8Linear)
    ids = torch.tensor([0, 8191, 8192, 69_999])
    assert torch.equal(model.embedding(ids), dense(Int8Matrix.of(checkpoint.embedding()))[ids])
    output = Int8Matrix.of(checkpoint.embedding() if tied else checkpoint.output())
    x = torch.randn(3, config.hidden_size)
    assert torch.equal(model.output(x), Int8Linear(output)(x))


def test_the_sentences_are_short_enough_for_any_model(plain: Path) -> None:
    opened = Folder.open(plain)
    short = replace(opened.config, max_positions=16)
    assert {len(sentence.ids) for sentence in calibration_texts(opened.tokenizer, short)} == {16}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss is something else")
def test_loading_peaks_at_little_more_than_the_int8_weights(make_checkpoint: MakeCheckpoint) -> None:
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 24, "num_key_value_heads": 4}
    folder = make_checkpoint(vocab_size=60_000, dtype=torch.bfloat16, **shape)
    config = ModelConfig.load(folder)
    vocabulary = config.vocab_size * config.hidden_size
    one_layer = 3 * 512 * 512 + 3 * 512 * 1408
    int8_bytes = 2 * vocabulary + config.num_layers * one_layer
    assert loading_bytes(folder) <= 1.3 * int8_bytes + 4 * one_layer


def loading_bytes(folder: Path) -> int:
    """What loading adds to the most that a process has had in memory so far."""
    code = f"""
import resource, torch
from pathlib import Path
from qwen_aio.engine.load import load_model
from qwen_aio.engine.weights.folder import Folder
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = load_model(Folder.open(Path({str(folder)!r})), max_context=64, threads=1, precision="int8")
print(peak() - before)
"""
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _parts(folder: Path) -> tuple:
    opened = Folder.open(folder)
    return opened.checkpoint, opened.config, calibration_texts(opened.tokenizer, opened.config)
