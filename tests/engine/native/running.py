"""Random models for both passes, and steps of the native one over sequences in any slots."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import PANEL, PATH, shared_library
from qwen_aio.engine.native.model import NativePool, NativeQwen, PackedModel
from qwen_aio.engine.native.panels import Array, factor_panels, float_panels, gate_up_order, int4_panels, int8_panels
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.scheduling.scheduler import Span
from tests.engine.native.reference import ReferenceLayer, ReferenceMatrix, ReferenceModel

if not PATH.exists() and shutil.which("g++") is None:
    pytest.skip("the library needs g++", allow_module_level=True)

KERNELS = tuple(
    name for name in ("plain", "avx2", "avx512", "dotprod") if shared_library().qwen_aio_kernel(name.encode())
)
NUM_POSITIONS = 128
PRECISIONS = ("fp32", "int8", "int8 in two passes", "int4", "int4 in two passes")  # of layers; int8 beside int4


def a_config(**shape: Any) -> ModelConfig:
    defaults = {
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 32,
        "has_qkv_bias": True,
        "has_qk_norm": False,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "max_positions": 32_768,
        "tied": True,
        "eos_ids": (0,),
    }
    return ModelConfig(**(defaults | shape))


def random_model(config: ModelConfig, precision: str, *, seed: int = 1) -> ReferenceModel:
    random = np.random.default_rng(seed)

    def vector(size: int, *, mean: float = 1.0) -> NDArray[np.float32]:
        return random.normal(mean, 0.3, size).astype(np.float32)

    def matrix(num_columns: int, num_inputs: int, *, is_layer: bool = True) -> ReferenceMatrix:
        weight = random.normal(0, num_inputs**-0.5, (num_columns, num_inputs)).astype(np.float32)
        if precision == "fp32":
            return ReferenceMatrix(weight)
        in_int4 = is_layer and precision.startswith("int4")
        quantised = ReferenceMatrix.in_int4 if in_int4 else ReferenceMatrix.quantised
        return quantised(weight, two_pass=precision.endswith("in two passes"))

    def layer() -> ReferenceLayer:
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        return ReferenceLayer(
            attention_norm=vector(config.hidden_size),
            qkv=matrix(heads + 2 * kv_heads, config.hidden_size),
            qkv_bias=vector(heads + 2 * kv_heads, mean=0.0) if config.has_qkv_bias else None,
            query_norm=vector(config.head_dim) if config.has_qk_norm else None,
            key_norm=vector(config.head_dim) if config.has_qk_norm else None,
            attention_output=matrix(config.hidden_size, heads),
            mlp_norm=vector(config.hidden_size),
            gate_up=matrix(2 * config.intermediate_size, config.hidden_size),
            down=matrix(config.hidden_size, config.intermediate_size),
        )

    output = matrix(config.vocab_size, config.hidden_size, is_layer=False)
    embedding = output if config.tied else matrix(config.vocab_size, config.hidden_size, is_layer=False)
    return ReferenceModel(
        config, embedding, output, vector(config.hidden_size), tuple(layer() for _ in range(config.num_layers))
    )


def native(model: ReferenceModel, kernel: str, *, threads: int = 1, num_positions: int = NUM_POSITIONS) -> NativeQwen:
    return NativeQwen(PackedModel(model.config, arrays_of(model, kernel), kernel, num_positions), threads=threads)


def arrays_of(model: ReferenceModel, kernel: str) -> dict[str, Array]:
    pack = partial(packed_matrix, together=shared_library().qwen_aio_together(kernel.encode()))
    arrays = {"norm": model.norm} | pack("output", model.output)
    if not model.config.tied:
        arrays |= pack("embedding", model.embedding)
    order = gate_up_order(model.config.intermediate_size)
    for number, layer in enumerate(model.layers):
        at = f"layers.{number}."
        arrays |= pack(f"{at}qkv", layer.qkv) | pack(f"{at}attention_output", layer.attention_output)
        arrays |= pack(f"{at}gate_up", layer.gate_up, order=order) | pack(f"{at}down", layer.down)
        vectors = {
            "attention_norm": layer.attention_norm,
            "qkv.bias": None if layer.qkv_bias is None else padded(layer.qkv_bias),
            "query_norm": layer.query_norm,
            "key_norm": layer.key_norm,
            "mlp_norm": layer.mlp_norm,
        }
        arrays |= {at + name: vector for name, vector in vectors.items() if vector is not None}
    return arrays


def packed_matrix(name: str, matrix: ReferenceMatrix, *, together: int, order: Any = slice(None)) -> dict[str, Array]:
    values = matrix.values[order]
    if matrix.scales is None:
        return {f"{name}.floats": float_panels(values)}
    arrays: dict[str, Array] = {f"{name}.scales": padded(matrix.scales[order])}
    if matrix.factors is not None:
        arrays[f"{name}.int4s"] = int4_panels(values, together=together)
        arrays[f"{name}.factors"] = factor_panels(matrix.factors[order])
    else:
        arrays[f"{name}.int8s"] = int8_panels(values, together=together)
        arrays[f"{name}.sums"] = padded(values.sum(axis=1, dtype=np.int32))
    return arrays | ({f"{name}.two_pass": np.ones(1, np.int8)} if matrix.two_pass else {})


def in_int4(model: PackedModel) -> PackedModel:
    """One of fp32 with its layers in int4, its output in int8."""
    together = shared_library().qwen_aio_together(model.kernel.encode())
    arrays: dict[str, Array] = {}
    for name, array in model.arrays.items():
        if name.endswith(".floats"):
            quantised = ReferenceMatrix.in_int4 if name.startswith("layers.") else ReferenceMatrix.quantised
            weight = array.transpose(0, 2, 1).reshape(-1, array.shape[1])
            arrays |= packed_matrix(name.removesuffix(".floats"), quantised(weight, two_pass=False), together=together)
        else:
            arrays[name] = array
    return replace(model, arrays=arrays)


def padded(vector: Array) -> Array:
    return np.pad(vector, (0, -len(vector) % PANEL))


@dataclass
class FakeLease:
    slot_array: NDArray[np.int32]


@dataclass
class FakeSequence:
    """Tokens in slots, whose every row from `first_logit_row` on is wanted."""

    ids: list[int]
    lease: FakeLease
    first_logit_row: int = 0
    tree: LabelTree | None = None
    num_computed: int = 0

    @property
    def num_prompt(self) -> int:
        return len(self.ids) if self.tree is None else len(self.ids) - self.tree.num_rows

    def positions(self, start: int, end: int) -> list[int]:
        if self.tree is None:
            return list(range(start, end))
        return [
            at if at < self.num_prompt else self.num_prompt - 1 + len(self.tree.ancestors(at - self.num_prompt))
            for at in range(start, end)
        ]

    def next_span(self, count: int) -> Span:
        """So many of the rows that are left."""
        start = self.num_computed
        self.num_computed = min(start + count, len(self.ids))
        return Span(self, start, self.num_computed - start)  # type: ignore[arg-type]  # the part of a sequence that a model reads


def a_sequence(ids: Iterable[int], slots: Iterable[int], *, first_logit_row: int = 0) -> FakeSequence:
    return FakeSequence(list(ids), FakeLease(np.array([*slots], np.int32)), first_logit_row)


def poisoned_pool(model: NativeQwen, num_slots: int) -> NativePool:
    """Every number in it is NaN until a row is stored."""
    pool = model.new_pool(num_slots)
    config = model.config
    size = config.num_layers * 2 * config.num_kv_heads * config.head_dim * pool.memory.num_slots
    ctypes.memset(pool.memory.numbers, 0xFF, size * (2 if pool.memory.is_half else 4))
    return pool


def states_alone(model: NativeQwen, ids: list[int]) -> NDArray[np.float32]:
    """Of a sequence by itself, whole, in the first slots of a pool."""
    return model.forward([a_sequence(ids, range(len(ids))).next_span(len(ids))], poisoned_pool(model, len(ids)))
