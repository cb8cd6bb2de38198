"""The model of another architecture: transformers' own forward pass and cache classes, and nothing else of it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from qwen_aio.errors import InvalidModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUM_PROBED = 2  # tokens, to see what the cache holds


class ForeignModel:
    """Weights and cache class of one checkpoint. Read only; used by one thread. Logits are arrays of numpy."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises InvalidModel if what it keeps of earlier tokens is not keys and values alone."""
        if getattr(model.config, "is_encoder_decoder", False):
            raise InvalidModel(f"{type(model).__name__} is an encoder-decoder model; that is not supported")
        self._model = model
        self._parameters = inspect.signature(model.forward).parameters
        stated = model.config.get_text_config(decoder=True)
        embeddings: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers'
        self.vocab_size = int(embeddings.weight.shape[0])
        self.max_positions = max_positions_of(stated)
        layers = _layers(self._probe())
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            raise InvalidModel(f"{type(model).__name__} keeps a state besides keys and values; that is not supported")
        self.can_crop = all(type(layer) is DynamicLayer for layer in layers)  # beyond its window, a sliding one cannot
        self.token_bytes = sum(each.nbytes for layer in layers for each in (layer.keys, layer.values)) // NUM_PROBED
        self._can_batch = self.can_crop and "position_ids" in self._parameters

    def new_cache(self) -> DynamicCache:
        """Of no token."""
        return DynamicCache(config=self._model.config)

    @torch.inference_mode()
    def copy_of(self, cache: DynamicCache, *, length: int) -> DynamicCache:
        """Its first `length` tokens; all of them where `can_crop` is false."""
        if not self.can_crop:
            return copy.deepcopy(cache)
        copied = self.new_cache()
        for number, layer in enumerate(_layers(cache)):
            copied.update(layer.keys[..., :length, :], layer.values[..., :length, :], number)
        return copied

    @torch.inference_mode()
    def repeated(self, cache: DynamicCache, count: int) -> DynamicCache:
        """A copy for a batch of `count` rows."""
        copied = copy.deepcopy(cache)
        copied.batch_repeat_interleave(count)
        return copied

    @torch.inference_mode()
    def forward(self, rows: Sequence[Sequence[int]], cache: DynamicCache, *, num_logits: int) -> NDArray[np.float32]:
        """(rows, num_logits, vocab): the logits after the last tokens of each row, which the cache takes in.

        `rows` are equally long, and follow the rows of the cache.
        """
        return self._logits(torch.tensor(rows), cache, num_logits=num_logits).numpy()

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], caches: Sequence[DynamicCache], *, most: int) -> NDArray[np.float32]:
        """(tokens, vocab): the logits after one more token of each cache, computed as one batch where it is exact.

        A batch copies its caches, filled up to the longest; what comes to more than `most` tokens is computed singly.
        """
        lengths = torch.tensor([cache.get_seq_length() for cache in caches])
        longest = int(lengths.max())
        if len(tokens) == 1 or not self._can_batch or len(tokens) * longest > most:
            each = [self.forward([[token]], cache, num_logits=1) for token, cache in zip(tokens, caches, strict=True)]
            return np.concatenate(each)[:, -1]
        batch = self._padded(caches, longest=longest)
        is_seen = torch.arange(longest + 1) >= (longest - lengths).unsqueeze(1)
        logits = self._logits(
            torch.tensor(tokens).unsqueeze(1),
            batch,
            num_logits=1,
            attention_mask=is_seen.long(),
            position_ids=lengths.unsqueeze(1),
        )
        for number, layer in enumerate(_layers(batch)):
            for row, cache in enumerate(caches):
                newest = slice(row, row + 1), slice(None), slice(-1, None)
                cache.update(layer.keys[newest], layer.values[newest], number)
        return logits[:, -1].numpy()

    def _padded(self, caches: Sequence[DynamicCache], *, longest: int) -> DynamicCache:
        """One cache with a row for each of `caches`, which end together; what is missing in front is zero."""
        batch = self.new_cache()
        for number, layers in enumerate(zip(*map(_layers, caches), strict=True)):
            batch.update(
                torch.cat([_padded_left(layer.keys, longest) for layer in layers]),
                torch.cat([_padded_left(layer.values, longest) for layer in layers]),
                number,
            )
        return batch

    def _logits(self, ids: Tensor, cache: DynamicCache, *, num_logits: int, **more: Tensor) -> Tensor:
        if "logits_to_keep" in self._parameters:
            output = self._model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=num_logits, **more
            )
        else:
            output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, **more)
        logits: Tensor = output.logits[:, -num_logits:].float()
        return logits

    @torch.inference_mode()
    def _probe(self) -> DynamicCache:
        """A cache of NUM_PROBED tokens. Raises InvalidModel for a model that fills none."""
        if "past_key_values" not in self._parameters:
            raise InvalidModel(f"{type(self._model).__name__} keeps no keys and values; that is not supported")
        cache = self.new_cache()
        self._logits(torch.zeros(1, NUM_PROBED, dtype=torch.long), cache, num_logits=1)
        if cache.get_seq_length() != NUM_PROBED:
            raise InvalidModel(f"{type(self._model).__name__} does not fill transformers' cache; that is not supported")
        return cache


def max_positions_of(config: Any) -> int:
    """Positions whose rotary factors do not depend on how long the prompt is: it is computed in chunks."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 2**31)
    rope = getattr(config, "rope_parameters", None) or {}
    kind = str(rope.get("rope_type", "default"))
    if kind == "longrope" or "dynamic" in kind:
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        positions = min(positions, int(original or positions))
    return positions


def _layers(cache: DynamicCache) -> list[Any]:
    """Those that hold something: the last ones of some families share another's keys and values and hold nothing."""
    return [layer for layer in cache.layers if getattr(layer, "is_initialized", True)]


def _padded_left(kept: Tensor, longest: int) -> Tensor:
    """(1, heads, tokens, d) -> (1, heads, longest, d)"""
    return torch.nn.functional.pad(kept, (0, 0, longest - kept.shape[-2], 0))
