"""What is kept of int8 weights equals them bit by bit; any other file in its place is none."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import PreTrainedConfig, Qwen2Config, Qwen3Config

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_model, make_engine
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.engine.native.packing import packed
from qwen_aio.engine.quant.kept_weights import kept_weights, recipe
from qwen_aio.engine.quant.preparing import quantised
from qwen_aio.engine.weights.array_file import CACHE_LINE, HEADER_BYTES, LENGTH_BYTES, ArrayFile, StoredArrays
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.engine.weights.model_weights import Array
from qwen_aio.engine.weights.rows import RowWeights, rows
from qwen_aio.files import replacing
from tests.engine.conftest import MakeCheckpoint
from tests.engine.outliers import of_mlp, with_outliers
from tests.engine.running import run, score, scores_of

SHA = "0123456789abcdef"


@pytest.fixture(params=["torch", "kernel"])
def kernel(request: pytest.FixtureRequest, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == TORCH:
        monkeypatch.setenv("QWEN_AIO_KERNEL", TORCH)
    return choose_kernel(Folder.open(checkpoint).config).name


@pytest.fixture
def place(tmp_path: Path, kernel: str) -> ArrayFile:
    return kept_weights(tmp_path / "state", SHA, kernel, "int8")


@pytest.fixture
def kept(checkpoint: Path, place: ArrayFile, kernel: str) -> ArrayFile:
    place.keep(arrays_of(checkpoint, kernel))
    return place


def arrays_of(folder: Path, kernel: str) -> Iterator[tuple[str, Array]]:
    opened = Folder.open(folder)
    weights = quantised(opened, kernel)
    return rows(weights, opened.config) if kernel == TORCH else packed(weights, opened.config, kernel=kernel)


def found(place: ArrayFile) -> StoredArrays:
    arrays = place.find()
    assert arrays is not None
    return arrays


def same(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize(
    ("vocab_size", "architecture"), [(640, Qwen2Config), (640, Qwen3Config), (262_144, Qwen2Config)]
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_holds_what_was_quantised_bit_by_bit(
    make_checkpoint: MakeCheckpoint,
    place: ArrayFile,
    kernel: str,
    tied: bool,
    vocab_size: int,
    architecture: type[PreTrainedConfig],
) -> None:
    folder = make_checkpoint(config=architecture, tie_word_embeddings=tied, vocab_size=vocab_size)
    place.keep(arrays_of(folder, kernel))
    assert same(found(place), dict(arrays_of(folder, kernel)))


@pytest.mark.parametrize("kernel", ["torch"], indirect=True)
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_the_weights_they_were_made_of(make_checkpoint: MakeCheckpoint, kernel: str, tied: bool) -> None:
    folder = Folder.open(make_checkpoint(tie_word_embeddings=tied, config=Qwen3Config))
    made = dict(rows(quantised(folder, kernel), folder.config))
    assert same(dict(rows(RowWeights(made), folder.config)), made)
    assert (RowWeights(made).output() is RowWeights(made).embedding()) == tied


def test_others_can_read_it(kept: ArrayFile) -> None:
    assert same(load_file(kept.path), found(kept))


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_one_mapping_holds_the_same_arrays_and_one_open_file(kept: ArrayFile) -> None:
    arrays = found(kept)
    before = len(list(Path("/proc/self/fd").iterdir()))
    together = arrays.together()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert same(together, arrays)


def test_arrays_begin_at_a_cache_line_and_cannot_be_written_to(kept: ArrayFile) -> None:
    for array in found(kept).together().values():
        assert array.nbytes % CACHE_LINE or array.ctypes.data % CACHE_LINE == 0
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_two_pass_matrices_stay_two_pass(checkpoint: Path, place: ArrayFile, kernel: str, tmp_path: Path) -> None:
    folder = with_outliers(checkpoint, tmp_path / "model", of_mlp, factor=50)
    place.keep(arrays_of(folder, kernel))
    assert "layers.1.down.two_pass" in found(place)
    assert same(found(place), dict(arrays_of(folder, kernel)))


def test_a_model_from_a_file_says_the_same(checkpoint: Path, place: ArrayFile) -> None:
    fresh, first, second = (
        make_engine(
            load_model(Folder.open(checkpoint), max_context=256, threads=1, precision="int8", kept=where),
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
def test_an_open_file_can_be_read_after_its_path_changes(
    kept: ArrayFile, checkpoint: Path, kernel: str, become: Callable[[Path], object]
) -> None:
    arrays = found(kept)
    become(kept.path)
    assert same(arrays, dict(arrays_of(checkpoint, kernel)))


# ---- what is written beside it ----


def names_beside(place: ArrayFile) -> list[str]:
    return [path.name for path in place.path.parent.iterdir()]


def interrupted(arrays: Iterator[tuple[str, Array]], happen: Callable[[], object]) -> Iterator[tuple[str, Array]]:
    """Something else runs while they are written."""
    yield next(arrays)
    happen()
    yield from arrays


def test_nothing_is_left_beside_it(kept: ArrayFile) -> None:
    assert names_beside(kept) == [kept.path.name]


def test_what_a_killed_writer_left_is_gone_with_the_next_file(place: ArrayFile, checkpoint: Path, kernel: str) -> None:
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
    place.keep(arrays_of(checkpoint, kernel))
    assert names_beside(place) == [place.path.name]


def test_two_that_write_at_once_do_not_meet(
    place: ArrayFile, checkpoint: Path, kernel: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.keep(interrupted(arrays_of(checkpoint, kernel), lambda: place.keep(arrays_of(checkpoint, kernel))))
    assert same(found(place), dict(arrays_of(checkpoint, kernel)))
    assert names_beside(place) == [place.path.name]
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
        flip(LENGTH_BYTES + HEADER_BYTES + 100),
        flip(8),
        exchange(b'"version":"2"', b'"version":"1"'),
        exchange(b'"levels":"', b'"levels":"9'),
        exchange(b'"layout":"', b'"layout":"x'),
        exchange(recipe().encode(), recipe().encode()[::-1]),
        exchange(SHA.encode(), SHA[::-1].encode()),
        exchange(b"layers.1.down", b"layers.2.down"),
        becomes(b"\xff" * 100),
        becomes(b""),
        becomes((2).to_bytes(8, "little") + b"[]"),
        becomes(HEADER_BYTES.to_bytes(8, "little") + b"[]".ljust(HEADER_BYTES)),
        becomes(HEADER_BYTES.to_bytes(8, "little") + b"[" * HEADER_BYTES),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_logged_and_unused(
    kept: ArrayFile, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytearray], bytearray]
) -> None:
    kept.path.write_bytes(spoil(bytearray(kept.path.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert kept.find() is None
    assert f"{kept.path.name} cannot be used and will be made anew" in caplog.text


def test_a_file_of_another_model_is_none(kept: ArrayFile) -> None:
    assert ArrayFile(kept.path, {**kept.identity, "model_sha": "fedcba9876543210"}).find() is None


def test_a_missing_file_is_not_logged(place: ArrayFile, caplog: pytest.LogCaptureFixture) -> None:
    assert place.find() is None
    assert caplog.text == ""


def test_an_unreadable_place_is_logged_and_holds_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ArrayFile(tmp_path / ("long" * 100), {}).find() is None
    assert "cannot be used" in caplog.text


def test_an_unwritable_place_is_logged_and_the_model_loads(
    checkpoint: Path, tmp_path: Path, kernel: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    place = kept_weights(tmp_path / "file" / "state", SHA, kernel, "int8")
    load_model(Folder.open(checkpoint), max_context=64, threads=1, precision="int8", kept=place)
    assert "no weights are kept" in caplog.text


def test_a_damaged_file_is_replaced(kept: ArrayFile, checkpoint: Path, kernel: str) -> None:
    kept.path.write_bytes(b"nothing")
    load_model(Folder.open(checkpoint), max_context=64, threads=1, precision="int8", kept=kept)
    assert same(found(kept), dict(arrays_of(checkpoint, kernel)))
