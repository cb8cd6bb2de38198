"""Which kernel computes, and what is said where none does."""

from __future__ import annotations

import _ctypes
from pathlib import Path

import pytest

from qwen_aio.engine.native import bindings
from qwen_aio.engine.native.bindings import KernelChoice, choose_kernel
from qwen_aio.errors import InvalidSettings
from tests.engine.native.running import KERNELS, a_config

VARIABLE = "QWEN_AIO_KERNEL"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def library_at(monkeypatch):
    """Another file in the place of the library."""

    def put(path: Path) -> None:
        monkeypatch.setattr(bindings, "PATH", path)
        bindings.shared_library.cache_clear()

    yield put
    bindings.shared_library.cache_clear()


def test_the_best_kernel_runs_unless_another_one_is_asked_for(monkeypatch):
    assert choose_kernel(a_config()) == KernelChoice(KERNELS[-1], "the best of this processor")
    for name in (*KERNELS, "torch"):
        monkeypatch.setenv(VARIABLE, name)
        assert str(choose_kernel(a_config())) == f"kernel {name}: asked for by QWEN_AIO_KERNEL"


@pytest.mark.parametrize("name", ["avx3", "AVX2", " plain", "最快"])
def test_a_kernel_that_is_none_is_refused(monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(InvalidSettings, match="but this processor runs no kernel of that name") as refused:
        choose_kernel(a_config())
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"hidden_size": 72}, "hidden_size 72 is no multiple of 32"),
        ({"intermediate_size": 40}, "intermediate_size 40 is no multiple of 16"),
        ({"head_dim": 24}, "head_dim 24 is no multiple of 16"),
    ],
)
def test_a_model_that_does_not_fit_is_computed_by_torch(monkeypatch, shape, why):
    assert choose_kernel(a_config(**shape)) == KernelChoice("torch", why)
    monkeypatch.setenv(VARIABLE, "plain")
    with pytest.raises(InvalidSettings, match=f"'plain', but {why}"):
        choose_kernel(a_config(**shape))


def test_where_the_library_was_not_built_torch_computes_and_it_is_said_why(monkeypatch, library_at, tmp_path):
    library_at(tmp_path / "nothing.so")
    assert choose_kernel(a_config()).name == "torch"
    assert "there was no C++ compiler" in choose_kernel(a_config()).why
    monkeypatch.setenv(VARIABLE, "plain")
    with pytest.raises(InvalidSettings, match="but the kernels were not built"):
        choose_kernel(a_config())


def test_a_library_that_cannot_be_loaded_is_said(library_at, tmp_path):
    damaged = tmp_path / "libqwen_aio.so"
    damaged.write_bytes(b"\x7fELF, and no more")
    library_at(damaged)
    assert choose_kernel(a_config()).name == "torch"
    assert "the kernels cannot be loaded" in choose_kernel(a_config()).why


def test_a_library_of_another_version_is_not_called(monkeypatch, library_at):
    monkeypatch.setattr(bindings, "LAYOUT", [*bindings.LAYOUT[:-1], 1])
    library_at(bindings.PATH)
    assert "is of another version" in choose_kernel(a_config()).why


def test_some_other_library_is_not_called(library_at):
    library_at(Path(_ctypes.__file__))
    assert "is of another version" in choose_kernel(a_config()).why
