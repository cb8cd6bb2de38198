"""A model that somebody has, as a folder or an archive, becomes a folder that can be loaded, or nothing is left."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwen_aio.engine.model.pickled import convert_pickle
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.errors import InvalidModel
from qwen_aio.models.find import BUNDLED
from qwen_aio.models.importing import import_model
from qwen_aio.models.manifest import differences, read_manifest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "Tiny-Chat", ignore=shutil.ignore_patterns("golden")))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def imported(source: Path, models: Path, name: str | None = None) -> Path:
    return import_model(
        source, models, name=name, convert=convert_pickle, verify=lambda folder: Folder.open(folder).tokenizer
    )


def refused(source: Path, models: Path, name: str | None = None) -> str:
    """Nothing is left behind."""
    before = sorted(models.iterdir()) if models.exists() else []
    with pytest.raises(InvalidModel) as caught:
        imported(source, models, name)
    assert (sorted(models.iterdir()) if models.exists() else []) == before
    assert ".import-" not in caught.value.message
    return caught.value.message


def assert_is_the_model(folder: Path) -> None:
    Folder.open(folder)
    ours, theirs = load_file(folder / "model.safetensors"), load_file(BUNDLED / "model.safetensors")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def packed(source: Path, path: Path) -> Path:
    """`source` in an archive of the kind that the name of `path` says, under one top folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in source.iterdir():
                archive.write(file, f"{source.name}/{file.name}")
    else:
        kind = path.suffix[1:].replace("tgz", "gz").replace("tar", "")
        quickly = {"gz": {"compresslevel": 1}, "xz": {"preset": 0}}.get(kind, {})
        with tarfile.open(path, f"w:{kind}", **quickly) as archive:
            archive.add(source, source.name)
    return path


def test_a_folder_becomes_one_with_what_a_model_needs(source, models):
    (source / "training_args.bin").write_bytes(b"x")
    (source / "notes.txt").write_text("private")
    made = imported(source, models)
    assert made == models / "tiny-chat"
    assert_is_the_model(made)
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in made.iterdir()} == names | {"manifest.json"}
    manifest = read_manifest(made)
    assert (manifest.files.keys(), manifest.source) == (names, str(source))
    assert differences(made, manifest) == ()
    assert [path.name for path in models.iterdir()] == ["tiny-chat"]


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.tgz", "m.tar.xz", "m.zip"])
def test_an_archive_is_as_good_as_its_folder(source, models, tmp_path, name):
    made = imported(packed(source, tmp_path / name), models, "from_archive")
    assert_is_the_model(made)
    assert [path.name for path in models.iterdir()] == ["from_archive"]


def test_a_name_that_is_taken_is_refused(source, models):
    imported(source, models)
    assert "exists; choose another name with --name" in refused(source, models)
    assert imported(source, models, "other").name == "other"


@pytest.mark.parametrize("name", ["..", "../../evil", "a b", ".hidden", "x" * 200, ""])
def test_a_name_stays_in_the_folder_of_models(source, models, name):
    if name in ("", "../../evil"):
        made = imported(source, models, name)
        assert made.parent == models
    else:
        assert "cannot name a folder" in refused(source, models, name)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "run"))


def test_code_in_a_pickle_is_not_run(source, models, tmp_path):
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Evil(tmp_path / "mark")}))
    assert "pytorch_model.bin is damaged, or holds more than tensors" in refused(source, models)
    torch.save({"model.norm.weight": Evil(tmp_path / "mark")}, source / "pytorch_model.bin")
    (tmp_path / "mark").unlink(missing_ok=True)
    assert "pytorch_model.bin is damaged, or holds more than tensors" in refused(source, models)
    assert not (tmp_path / "mark").exists()


def test_an_archive_writes_nothing_outside(source, models, tmp_path):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../escaped/config.json", "/tmp/escaped/config.json"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
    assert "is damaged, or no archive" in refused(path, models)
    assert not (tmp_path / "escaped").exists()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../escaped/config.json", "{}")
    refused(tmp_path / "evil.zip", models)
    assert not (tmp_path / "escaped").exists() and not (models.parent / "escaped").exists()


def test_an_archive_of_links_is_no_model(models, tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("m/config.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert "holds no config.json" in refused(path, models)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "model.safetensors is damaged"),
        (lambda folder: shutil.rmtree(folder), "no model folder at"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "m.gguf"),
            "GGUF (llama.cpp), which is not read here",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_words_about_what_was_given(source, models, change, said):
    change(source)
    message = refused(source, models)
    assert said in message and str(source) in message


def test_a_quantised_checkpoint_is_refused_with_what_to_do(source, models):
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(
        config.rstrip().removesuffix("}") + ', "quantization_config": {"quant_method": "gptq"}}'
    )
    assert "gptq" in refused(source, models).lower()


def _cut(content: bytes) -> bytes:
    return content[:10_000]


def _changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 40]) + content[middle + 40 :]


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tar.xz", "m.zip"])
@pytest.mark.parametrize("damaged", [_cut, _changed])
def test_a_damaged_archive_is_refused(source, models, tmp_path, name, damaged):
    path = packed(source, tmp_path / name)
    path.write_bytes(damaged(path.read_bytes()))
    assert "is damaged, or no archive" in refused(path, models)


def test_what_a_mac_puts_beside_the_files_is_left_out(source, models, tmp_path):
    (source / "._model.safetensors").write_bytes(b"fork")
    made = imported(packed(source, tmp_path / "mac.tar"), models, "mac")
    assert not list(made.glob(".*"))


def test_two_models_in_an_archive_are_one_too_many(source, models, tmp_path):
    both = tmp_path / "both"
    for name in ("one", "two"):
        shutil.copytree(source, both / name)
    with tarfile.open(tmp_path / "both.tar", "w") as archive:
        archive.add(both, "both")
    assert "holds more than one model" in refused(tmp_path / "both.tar", models)


def test_an_empty_pickle_is_damaged(source, models):
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin is damaged" in refused(source, models)
