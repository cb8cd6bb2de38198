"""Our forward pass against transformers', number by number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.model.building import build_qwen2
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.model.linear import Fp32Embedding, Fp32Linear
from qwen_aio.engine.scheduling.scheduler import Span, in_batch_order
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.weights.checkpoint import SINGLE, Checkpoint
from qwen_aio.engine.weights.model_weights import Int8Matrix, LayerWeights
from qwen_aio.result import Truncation
from tests.engine.conftest import MakeCheckpoint, load_oracle
from tests.engine.running import dense

SHAPES = {
    "grouped heads, tied": {},
    "all heads, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "one key head, three layers": {"num_key_value_heads": 1, "num_hidden_layers": 3},
    "head_dim 20, not a power of two": {"hidden_size": 80, "num_key_value_heads": 1},
    "other rotary base": {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}},
    "sharded": {"max_shard_size": "100KB", "tie_word_embeddings": False},
    "stored as bf16": {"dtype": torch.bfloat16},
    "stored as fp16": {"dtype": torch.float16},
    "Qwen3, wide heads, tied": {"config": Qwen3Config, "head_dim": 48},
    "Qwen3, all heads, untied": {
        **{"config": Qwen3Config, "head_dim": 16, "num_key_value_heads": 4, "tie_word_embeddings": False}
    },
}


class EveryRow(Sequence):
    """A prompt whose logits are all needed."""

    @property
    def first_logit_row(self) -> int:
        return 0


def load(folder: Path) -> Qwen2:
    config = ModelConfig.load(folder)
    return build_qwen2(Checkpoint(folder, config), config, num_positions=128)


def logits(model: Qwen2, prompts: list[list[int]], *, chunk: int) -> list[torch.Tensor]:
    """Logits of all rows, the prompts side by side in chunks of `chunk` rows."""
    cache, pool = RadixCache(256), model.new_pool(256)
    sequences = [EveryRow(str(n), ids, len(ids), len(ids), 0.0, Truncation()) for n, ids in enumerate(prompts)]
    for sequence in sequences:
        lease = cache.lease(sequence.ids, num_rows=sequence.num_rows)
        assert lease is not None
        sequence.admit(lease, now_s=0.0)
    found: dict[str, list[torch.Tensor]] = {sequence.request_id: [] for sequence in sequences}
    while any(not sequence.is_finished for sequence in sequences):
        spans = in_batch_order(
            [
                Span(sequence, sequence.num_computed, min(chunk, len(sequence.ids) - sequence.num_computed))
                for sequence in sequences
                if not sequence.is_finished
            ]
        )
        rows = torch.from_numpy(model.logits(model.forward(spans, pool)))
        parts = rows.split([span.count for span in spans])
        for span, part in zip(spans, parts, strict=True):
            found[span.sequence.request_id].append(part)
            span.sequence.num_computed = span.end
    return [torch.cat(parts) for parts in found.values()]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("chunk", [7, 64])
@torch.inference_mode()
def test_logits_equal_those_of_transformers(
    make_checkpoint: MakeCheckpoint, shape: dict[str, object], chunk: int
) -> None:
    folder = make_checkpoint(**shape)
    model, oracle = load(folder), load_oracle(folder)
    prompts = [[(7 * i + 3 * n) % 500 for i in range(length)] for n, length in enumerate((5, 33, 18))]
    for ids, ours in zip(prompts, logits(model, prompts, chunk=chunk), strict=True):
        theirs = oracle(torch.tensor([ids])).logits[0]
        assert (ours - theirs).abs().max() < 1e-4
        assert theirs.std() > 0.5  # the comparison means something


@torch.inference_mode()
def test_a_qwen2_without_biases_has_biases_of_zero(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    tensors, values = load_file(folder / SINGLE), json.loads((folder / "config.json").read_text())
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("bias")}, folder / SINGLE)
    (folder / "config.json").write_text(json.dumps(values | {"attention_bias": False}))
    ids = [(7 * i) % 500 for i in range(20)]
    [without] = logits(load(folder), [ids], chunk=64)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items() if name.endswith("bias")}
    save_file(tensors | zeros, folder / SINGLE)
    (folder / "config.json").write_text(json.dumps(values))
    assert (without - load_oracle(folder)(torch.tensor([ids])).logits[0]).abs().max() < 1e-4


def test_tied_embedding_and_output_are_one_tensor(make_checkpoint: MakeCheckpoint) -> None:
    model = load(make_checkpoint(tie_word_embeddings=True))
    assert isinstance(model.embedding, Fp32Embedding) and isinstance(model.output, Fp32Linear)
    assert model.output.weight.data_ptr() == model.embedding.weight.data_ptr()


class Fine:
    """A checkpoint with every matrix but the embedding in two-pass int8 (ModelWeights)."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self._checkpoint = Checkpoint(folder, config)
        self.embedding, self.norm = self._checkpoint.embedding, self._checkpoint.norm

    def output(self) -> Int8Matrix:
        return Int8Matrix.of(self._checkpoint.output(), two_pass=True)

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        return self._checkpoint.layer(number).converted(lambda weight: Int8Matrix.of(weight, two_pass=True))


def rounded_(oracle: PreTrainedModel) -> PreTrainedModel:
    """`oracle`, its matrices replaced by what int8 makes of them."""
    for name, parameter in oracle.named_parameters():
        if "proj.weight" in name or name == "lm_head.weight":
            parameter.data = dense(Int8Matrix.of(parameter.data.numpy()))
    return oracle


@pytest.mark.parametrize("architecture", [Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("heads", [1, 2, 4])
@torch.inference_mode()
def test_int8_is_transformers_with_rounded_weights(
    make_checkpoint: MakeCheckpoint, heads: int, architecture: type[PreTrainedConfig]
) -> None:
    folder = make_checkpoint(config=architecture, num_key_value_heads=heads, head_dim=24, tie_word_embeddings=False)
    config = ModelConfig.load(folder)
    model, oracle = build_qwen2(Fine(folder, config), config, num_positions=128), rounded_(load_oracle(folder))
    prompts = [[(7 * i + 3 * n) % 500 for i in range(length)] for n, length in enumerate((5, 33, 18))]
    for ids, ours in zip(prompts, logits(model, prompts, chunk=7), strict=True):
        theirs = oracle(torch.tensor([ids])).logits[0]
        assert (ours - theirs).abs().max() < 0.01
        assert theirs.std() > 0.5  # the comparison means something
