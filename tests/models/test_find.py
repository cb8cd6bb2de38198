from pathlib import Path

import pytest

from qwen_aio.errors import InvalidModel
from qwen_aio.models.find import BUNDLED, FULL_MODEL, find_model, model_sha


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_the_bundled_model_is_taken_when_there_is_no_other(tmp_path):
    model = find_model(None, home=tmp_path)
    assert (model.path, model.is_bundled) == (BUNDLED, True)
    assert FULL_MODEL in model.chosen_by


def test_the_full_model_in_home_goes_before_the_bundled_one(tmp_path):
    full = make_model(tmp_path / "models" / FULL_MODEL)
    assert find_model(None, home=tmp_path).path == full
    assert find_model("bundled", home=tmp_path).path == BUNDLED


def test_a_stated_folder_goes_before_all(tmp_path):
    make_model(tmp_path / "models" / FULL_MODEL)
    other = make_model(tmp_path / "other")
    model = find_model(str(other), home=tmp_path)
    assert (model.path, model.name, model.is_bundled) == (other, "other", False)


def test_a_folder_that_is_no_model_is_reported(tmp_path):
    with pytest.raises(InvalidModel, match="no model folder"):
        find_model(str(tmp_path / "nowhere"), home=tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_covers_all_that_decides_the_answer(tmp_path, name):
    folder = make_model(tmp_path / "m")
    before = model_sha(folder)
    (folder / "README.md").write_text("does not count")
    assert model_sha(folder) == before
    (folder / name).write_text("other")
    assert model_sha(folder) != before
