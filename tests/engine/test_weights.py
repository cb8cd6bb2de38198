"""Checkpoints that are not what they should be are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine, load_model
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.errors import InvalidModel
from tests.engine.conftest import MakeCheckpoint

Tensors = dict[str, torch.Tensor]
NORM = "model.norm.weight"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def load(folder: Path) -> None:
    load_engine(folder, EngineLimits(max_context=128, kv_mb=1), threads=1)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(NORM), f"lacks {NORM}"),
        (lambda t: t.pop("model.layers.1.self_attn.k_proj.bias"), "lacks model.layers.1.self_attn.k_proj.bias"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected tensors: extra"),
        (lambda t: t.update({NORM: torch.ones(3)}), rf"{NORM} has shape \(3,\); config.json asks for \(64,\)"),
        (lambda t: t.update({NORM: torch.ones(64, dtype=torch.int8)}), "stored as I8"),
        (lambda t: t.clear(), "and 21 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy: Path, edit: Callable[[Tensors], object], words: str) -> None:
    change(copy, edit)
    with pytest.raises(InvalidModel, match=words):
        load(copy)


def test_tensors_without_a_part_in_the_computation_are_passed_over(copy: Path, checkpoint: Path) -> None:
    change(copy, lambda t: t.update({"lm_head.weight": torch.zeros_like(t["model.embed_tokens.weight"])}))
    with_it, without = (
        load_model(Folder.open(folder), max_context=128, threads=1).with_threads(1).logits(np.ones((1, 64), np.float32))
        for folder in (copy, checkpoint)
    )
    assert np.array_equal(with_it, without)
    assert without.all()


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(InvalidModel, match="holds neither"):
        load(copy)


def test_a_file_cut_short_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidModel, match=r"model\.safetensors is damaged"):
        load(copy)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../../elsewhere.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "not-here.safetensors"}}, "lacks not-here.safetensors"),
        ({"weight_map": {"a": 3}}, "outside its folder: 3"),
        ({}, "is damaged"),
        ([], "is damaged"),
        ("[" * 100_000, "is damaged"),
    ],
    ids=lambda it: str(it)[:40],
)
def test_an_index_that_points_nowhere_is_refused(copy: Path, index: object, words: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(InvalidModel, match=words):
        load(copy)


def test_a_byte_order_mark_in_an_index_is_read_away(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "only.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "only.safetensors"}}', encoding="utf-8-sig"
    )
    load(copy)


def test_a_tokenizer_larger_than_the_model_is_refused(make_checkpoint: MakeCheckpoint) -> None:
    with pytest.raises(InvalidModel, match="the model only 300"):
        load(make_checkpoint(vocab_size=300, eos_token_id=0))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"no model folder at .*nowhere"):
        load(tmp_path / "nowhere")


def test_loading_says_nothing_on_stdout(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(checkpoint)
    assert capfd.readouterr().out == ""
