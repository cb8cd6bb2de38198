"""What must be computed once for a model, before it serves in int8 or int4: weights, and how close they are to fp32."""

from __future__ import annotations

from collections import abc
from pathlib import Path

import torch

from qwen_aio.core import Rounded
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.engine.native.model import NativeQwen, PackedModel
from qwen_aio.engine.native.packing import AnyMatrix, packed
from qwen_aio.engine.quant.comparison import Comparison, RoundedByKernel, RoundedInTorch, RoundedModel, compare
from qwen_aio.engine.quant.kept_weights import input_levels
from qwen_aio.engine.quant.quantise import Quantised, QuantisedToInt4, calibration_texts
from qwen_aio.engine.requests import Score
from qwen_aio.engine.weights.array_file import ArrayFile, StoredArrays
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.engine.weights.model_weights import Array, ModelWeights, WeightsOf
from qwen_aio.engine.weights.rows import RowWeights, rows


def compare_precisions(
    model_dir: Path, questions: abc.Sequence[Score], *, precision: Rounded, threads: int, kept: ArrayFile
) -> Comparison:
    """The checkpoint in `model_dir` in fp32 and in `precision`, whose weights are kept.

    Raises InvalidModel, InvalidSettings, and for questions InvalidRequest, ContextTooSmall.
    """
    torch.set_num_threads(threads)
    folder = Folder.open(model_dir)
    config, kernel = folder.config, choose_kernel(folder.config).name
    rounded: RoundedModel
    if kernel == TORCH:
        rounded = RoundedInTorch(int8_weights(folder, kept), config)
    else:
        found = kept.find()
        arrays = made_arrays(folder, kernel, kept, precision) if found is None else found.together()
        model = PackedModel(config, arrays, kernel, config.max_positions)
        rounded = RoundedByKernel(NativeQwen(model, threads=threads))
    return compare(folder.checkpoint, rounded, config, folder.tokenizer, questions)


def int8_weights(folder: Folder, kept: ArrayFile | None) -> ModelWeights:
    """For torch: from `kept`, or made, and kept there. Raises InvalidModel."""
    if kept is None:
        return quantised(folder, TORCH)
    arrays = kept.find() or _found_after(kept, rows(quantised(folder, TORCH), folder.config))
    return RowWeights(arrays) if arrays else quantised(folder, TORCH)


def made_arrays(folder: Folder, kernel: str, kept: ArrayFile | None, precision: Rounded) -> abc.Mapping[str, Array]:
    """For a kernel of the C++ library: made, and kept in `kept`. Raises InvalidModel."""

    def made() -> abc.Iterator[tuple[str, Array]]:
        in_int8 = quantised(folder, kernel)
        weights: WeightsOf[AnyMatrix] = in_int8 if precision == "int8" else QuantisedToInt4(in_int8)
        return packed(weights, folder.config, kernel=kernel)

    found = None if kept is None else _found_after(kept, made())
    return dict(made()) if found is None else found.together()


def quantised(folder: Folder, kernel: str) -> Quantised:
    """The weights in int8 for `kernel`, made layer by layer."""
    texts = calibration_texts(folder.tokenizer, folder.config)
    return Quantised(folder.checkpoint, folder.config, texts, levels=input_levels(kernel))


def _found_after(kept: ArrayFile, arrays: abc.Iterator[tuple[str, Array]]) -> StoredArrays | None:
    kept.keep(arrays)
    return kept.find()
