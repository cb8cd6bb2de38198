"""A copy of int8 weights is the weights, bit by bit; whatever else lies in its place is no copy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.int8_copy import HEADER_BYTES, CopyPlace, Int8Copy
from qwen_aio.engine.int8_weights import Int8Weights
from qwen_aio.engine.linear import Int8Matrix
from qwen_aio.engine.load import Folder, load_model, make_engine
from qwen_aio.engine.quantise import Quantised, readings
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
    return Quantised(opened.checkpoint, opened.config, readings(opened.tokenizer, opened.config))


def found(place: CopyPlace) -> Int8Copy:
    copy = place.find()
    assert copy is not None
    return copy


def parts(weights: Int8Weights, num_layers: int) -> list[torch.Tensor | bool]:
    """Everything there is, matrices taken apart."""
    layers = [part for number in range(num_layers) for part in vars(weights.layer(number)).values()]
    whole = [weights.embedding(), weights.output(), weights.norm(), *layers]
    return [
        piece
        for part in whole
        for piece in ((part.values, part.scales, part.is_fine) if isinstance(part, Int8Matrix) else (part,))
    ]


def same(left: Int8Weights, right: Int8Weights, num_layers: int) -> bool:
    pairs = list(zip(parts(left, num_layers), parts(right, num_layers), strict=True))
    return all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in pairs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab_size", [640, 262_144])
def test_a_copy_holds_what_was_quantised_bit_by_bit(
    make_checkpoint: MakeCheckpoint, place: CopyPlace, tied: bool, vocab_size: int
) -> None:
    folder = make_checkpoint(tie_word_embeddings=tied, vocab_size=vocab_size)
    place.keep(quantised(folder), Folder.open(folder).config)
    assert same(found(place), quantised(folder), num_layers=2)


def test_what_is_fine_stays_fine(checkpoint: Path, place: CopyPlace, tmp_path: Path) -> None:
    folder = with_outliers(checkpoint, tmp_path / "model", of_mlp, factor=50)
    place.keep(quantised(folder), Folder.open(folder).config)
    assert found(place).layer(1).down.is_fine
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


def test_nothing_is_left_beside_a_copy(kept: CopyPlace) -> None:
    assert [path.name for path in kept.path.parent.iterdir()] == ["copy.safetensors"]


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
        flip(-1),
        flip(HEADER_BYTES + 100),
        flip(8),
        exchange(b'"version":"1, ', b'"version":"0, '),
        exchange(b" levels", b" LEVELS"),
        exchange(SHA.encode(), SHA[::-1].encode()),
        exchange(b'"fine":"', b'"fine":" '),
        exchange(b"layers.1.down", b"layers.2.down"),
        becomes(b"\xff" * 100),
        becomes(b""),
        becomes((2).to_bytes(8, "little") + b"[]"),
    ],
)
def test_a_copy_that_is_not_as_it_was_written_is_none_and_is_told(
    kept: CopyPlace, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytearray], bytearray]
) -> None:
    kept.path.write_bytes(spoil(bytearray(kept.path.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert kept.find() is None
    assert "copy.safetensors cannot be used and will be made anew" in caplog.text


def test_a_copy_of_another_model_is_none(kept: CopyPlace) -> None:
    assert CopyPlace(kept.path, "fedcba9876543210").find() is None


def test_no_copy_is_nothing_to_talk_about(place: CopyPlace, caplog: pytest.LogCaptureFixture) -> None:
    assert place.find() is None
    assert caplog.text == ""


def test_a_place_that_cannot_be_written_to_is_told_and_the_model_loads(
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
