"""A copy of int8 weights equals them bit by bit; any other file in its place is no copy."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, Qwen2Config, Qwen3Config

from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.load import Folder, load_model, make_engine
from qwen_aio.engine.model.linear import Int8Matrix
from qwen_aio.engine.model.weights import LayerWeights, ModelWeights
from qwen_aio.engine.quant.int8_copy import HEADER_BYTES, CopyPlace, Int8Copy
from qwen_aio.engine.quant.quantise import Quantised, calibration_texts, recipe
from qwen_aio.files import replacing
from tests.engine.conftest import MakeCheckpoint
from tests.engine.outliers import of_mlp, with_outliers
from tests.engine.running import run, score, scores_of

SHA = "0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path) -> CopyPlace:
    return CopyPlace(tmp_path / "state" / "copy.safetensors", SHA)


@pytest.fixture
def kept(checkpoint: Path, place: CopyPlace) -> CopyPlace:
    place.keep(quantised(checkpoint), Folder.open(checkpoint).config)
    return place


def quantised(folder: Path) -> Quantised:
    opened = Folder.open(folder)
    return Quantised(opened.checkpoint, opened.config, calibration_texts(opened.tokenizer, opened.config))


def found(place: CopyPlace) -> Int8Copy:
    copy = place.find()
    assert copy is not None
    return copy


def parts(weights: ModelWeights, num_layers: int) -> list[torch.Tensor | bool]:
    """Everything there is, matrices taken apart."""
    layers = [part for number in range(num_layers) for part in vars(weights.layer(number)).values()]
    whole = [weights.embedding(), weights.output(), weights.norm(), *layers]
    return [
        piece
        for part in whole
        for piece in ((part.values, part.scales, part.two_pass) if isinstance(part, Int8Matrix) else (part,))
        if piece is not None
    ]


def same(left: ModelWeights, right: ModelWeights, num_layers: int) -> bool:
    pairs = list(zip(parts(left, num_layers), parts(right, num_layers), strict=True))
    return all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in pairs)


@pytest.mark.parametrize(
    ("vocab_size", "architecture"), [(640, Qwen2Config), (640, Qwen3Config), (262_144, Qwen2Config)]
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_copy_holds_what_was_quantised_bit_by_bit(
    make_checkpoint: MakeCheckpoint,
    place: CopyPlace,
    tied: bool,
    vocab_size: int,
    architecture: type[PreTrainedConfig],
) -> None:
    folder = make_checkpoint(config=architecture, tie_word_embeddings=tied, vocab_size=vocab_size)
    place.keep(quantised(folder), Folder.open(folder).config)
    assert same(found(place), quantised(folder), num_layers=2)


def test_others_can_read_it(kept: CopyPlace) -> None:
    tensors = load_file(kept.path)
    assert torch.equal(tensors["layers.1.down.values"], found(kept).layer(1).down.values)
    assert torch.equal(tensors["norm"], found(kept).norm())


def test_two_pass_matrices_stay_two_pass(checkpoint: Path, place: CopyPlace, tmp_path: Path) -> None:
    folder = with_outliers(checkpoint, tmp_path / "model", of_mlp, factor=50)
    place.keep(quantised(folder), Folder.open(folder).config)
    assert found(place).layer(1).down.two_pass
    assert same(found(place), quantised(folder), num_layers=2)


def test_a_model_from_a_copy_says_the_same(checkpoint: Path, place: CopyPlace) -> None:
    fresh, first, second = (
        make_engine(
            load_model(checkpoint, max_context=256, threads=1, precision="int8", place=where),
            EngineLimits(max_context=256, kv_mb=1),
            threads=1,
        )
        for where in (None, place, place)
    )
    said = [scores_of(run(engine, {"a": score("你好")})["a"]).labels for engine in (fresh, first, second)]
    assert said[0] == said[1] == said[2]


def replace_by_nothing(path: Path) -> None:
    with replacing(path) as partial:
        partial.touch()


@pytest.mark.skipif(sys.platform == "win32", reason="there an open file stays where it is")
@pytest.mark.parametrize("become", [Path.unlink, replace_by_nothing])
def test_an_open_copy_can_be_read_after_its_path_changes(
    kept: CopyPlace, checkpoint: Path, become: Callable[[Path], object]
) -> None:
    copy = found(kept)
    become(kept.path)
    assert same(copy, quantised(checkpoint), num_layers=2)


# ---- what is written beside it ----


def names_beside(place: CopyPlace) -> list[str]:
    return [path.name for path in place.path.parent.iterdir()]


class Interrupted:
    """Weights that run something else while they are read (ModelWeights)."""

    def __init__(self, weights: ModelWeights, happen: Callable[[], object]) -> None:
        self.embedding, self.output, self.norm = weights.embedding, weights.output, weights.norm
        self._weights, self._happen = weights, happen

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        self._happen()
        return self._weights.layer(number)


def test_nothing_is_left_beside_a_copy(kept: CopyPlace) -> None:
    assert names_beside(kept) == ["copy.safetensors"]


def test_what_a_killed_writer_left_is_gone_with_the_next_copy(place: CopyPlace, checkpoint: Path) -> None:
    code = f"""
import os
from pathlib import Path
from qwen_aio.files import replacing
with replacing(Path({str(place.path)!r})) as partial:
    partial.write_bytes(b"half")
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(names_beside(place)) == 1
    place.keep(quantised(checkpoint), ModelConfig.load(checkpoint))
    assert names_beside(place) == ["copy.safetensors"]


def test_two_that_write_at_once_do_not_meet(
    place: CopyPlace, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig.load(checkpoint)
    place.keep(Interrupted(quantised(checkpoint), lambda: place.keep(quantised(checkpoint), config)), config)
    assert same(found(place), quantised(checkpoint), num_layers=2)
    assert names_beside(place) == ["copy.safetensors"]
    assert caplog.text == ""


def cut(content: bytearray) -> bytearray:
    return content[:-1]


def flip(position: int) -> Callable[[bytearray], bytearray]:
    def flipped(content: bytearray) -> bytearray:
        content[position] ^= 1
        return content

    return flipped


def exchange(old: bytes, new: bytes) -> Callable[[bytearray], bytearray]:
    def exchanged(content: bytearray) -> bytearray:
        assert old in content
        return content.replace(old, new, 1)

    return exchanged


def becomes(other: bytes) -> Callable[[bytearray], bytearray]:
    return lambda _: bytearray(other)


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        flip(3),
        flip(-1),
        flip(HEADER_BYTES + 100),
        flip(8),
        exchange(b'"version":"1, ', b'"version":"0, '),
        exchange(b" levels", b" LEVELS"),
        exchange(recipe().encode(), recipe().encode()[::-1]),
        exchange(SHA.encode(), SHA[::-1].encode()),
        exchange(b'"fine":"', b'"fine":" '),
        exchange(b"layers.1.down", b"layers.2.down"),
        becomes(b"\xff" * 100),
        becomes(b""),
        becomes((2).to_bytes(8, "little") + b"[]"),
        becomes(HEADER_BYTES.to_bytes(8, "little") + b"[]".ljust(HEADER_BYTES)),
        becomes(HEADER_BYTES.to_bytes(8, "little") + b"[" * HEADER_BYTES),
    ],
)
def test_a_copy_that_is_not_as_it_was_written_is_logged_and_unused(
    kept: CopyPlace, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytearray], bytearray]
) -> None:
    kept.path.write_bytes(spoil(bytearray(kept.path.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert kept.find() is None
    assert "copy.safetensors cannot be used and will be made anew" in caplog.text


def test_a_copy_of_another_model_is_none(kept: CopyPlace) -> None:
    assert CopyPlace(kept.path, "fedcba9876543210").find() is None


def test_a_missing_copy_is_not_logged(place: CopyPlace, caplog: pytest.LogCaptureFixture) -> None:
    assert place.find() is None
    assert caplog.text == ""


def test_an_unreadable_place_is_logged_and_holds_no_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert CopyPlace(tmp_path / ("long" * 100), SHA).find() is None
    assert "cannot be used" in caplog.text


def test_an_unwritable_place_is_logged_and_the_model_loads(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    place = CopyPlace(tmp_path / "file" / "copy.safetensors", SHA)
    load_model(checkpoint, max_context=64, threads=1, precision="int8", place=place)
    assert "no int8 copy is kept" in caplog.text


def test_a_damaged_copy_is_replaced(kept: CopyPlace, checkpoint: Path) -> None:
    kept.path.write_bytes(b"nothing")
    load_model(checkpoint, max_context=64, threads=1, precision="int8", place=kept)
    assert same(found(kept), quantised(checkpoint), num_layers=2)
