"""Our forward pass against transformers', number by number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qwen_aio.core import Cuts
from qwen_aio.engine.attention import KvMemory, gather_rows, ordered
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.kv_cache import KvCache
from qwen_aio.engine.model import Qwen2
from qwen_aio.engine.scheduler import Span
from qwen_aio.engine.sequence import Sequence
from qwen_aio.engine.weights import load_weights
from tests.engine.conftest import MakeCheckpoint, load_oracle

SHAPES = {
    "grouped heads, tied": {},
    "all heads, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "one key head, three layers": {"num_key_value_heads": 1, "num_hidden_layers": 3},
    "head_dim 20, not a power of two": {"hidden_size": 80, "num_key_value_heads": 1},
    "other rotary base": {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}},
    "sharded": {"max_shard_size": "100KB", "tie_word_embeddings": False},
    "stored as bf16": {"dtype": torch.bfloat16},
    "stored as fp16": {"dtype": torch.float16},
}


class EveryRow(Sequence):
    """A prompt of which all logits are wanted."""

    @property
    def first_logit_row(self) -> int:
        return 0


def load(folder: Path) -> Qwen2:
    model = Qwen2(ModelConfig.load(folder), num_positions=128)
    load_weights(model, folder)
    return model


def logits(model: Qwen2, prompts: list[list[int]], *, chunk: int) -> list[torch.Tensor]:
    """Logits of all rows, the prompts side by side in chunks of `chunk` rows."""
    cache, memory = KvCache(256), KvMemory(model.config, 256)
    sequences = [EveryRow(str(n), ids, len(ids), len(ids), 0.0, Cuts()) for n, ids in enumerate(prompts)]
    for sequence in sequences:
        lease = cache.lease(sequence.ids, num_rows=sequence.num_rows)
        assert lease is not None
        sequence.admit(lease, now_s=0.0)
    found: dict[str, list[torch.Tensor]] = {sequence.request_id: [] for sequence in sequences}
    while any(not sequence.is_finished for sequence in sequences):
        spans = ordered(
            [
                Span(sequence, sequence.num_computed, min(chunk, len(sequence.ids) - sequence.num_computed))
                for sequence in sequences
                if not sequence.is_finished
            ]
        )
        rows = gather_rows(spans, heads_per_kv_head=model.config.num_heads // model.config.num_kv_heads)
        parts = model.logits(model.forward(rows, memory)).split([span.count for span in spans])
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


def test_a_checkpoint_stored_in_16_bits_is_computed_in_32(make_checkpoint: MakeCheckpoint) -> None:
    model = load(make_checkpoint(dtype=torch.bfloat16))
    assert model.embedding.dtype == torch.float32
    assert model.layers[0].mlp.down.weight.dtype == torch.float32


def test_tied_embedding_and_output_are_one_tensor(make_checkpoint: MakeCheckpoint) -> None:
    model = load(make_checkpoint(tie_word_embeddings=True))
    assert model.output.weight is model.embedding
