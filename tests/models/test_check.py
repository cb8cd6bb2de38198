"""What people name as a model folder and is none: each in a sentence that says what it is and what to do."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwen_aio.cli.main import main
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.errors import InvalidModel
from qwen_aio.models.find import BUNDLED, find_model

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1239173352\n"
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model, to be changed."""
    return Path(shutil.copytree(BUNDLED, tmp_path / "model", ignore=shutil.ignore_patterns("golden", "*.md")))


def refused(model: Path) -> str:
    with pytest.raises(InvalidModel) as caught:
        Folder.open(find_model(str(model), home=model.parent).path)
    message = caught.value.message
    assert "\n" not in message and "{" not in message
    return message


def becomes(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def dangles(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/4d7a2146")

    return change


def config_with(**more: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))

    return change


def only(*names: str) -> Change:
    """Nothing is in the folder but these, which are no weights of ours."""

    def change(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        for name in names:
            (folder / name).write_text('{"base_model_name_or_path": "Qwen/Qwen1.5-0.5B-Chat"}')

    return change


def instead_of_weights(name: str) -> Change:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lacks_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("change", "what", "do"),
    [
        (dangles("model.safetensors"), "model.safetensors is a link to ../../blobs/4d7a2146", "download or copy"),
        (dangles("config.json"), "config.json is a link", "download or copy"),
        (dangles("tokenizer.json"), "tokenizer.json is a link", "download or copy"),
        (becomes("model.safetensors", LFS), "model.safetensors is a pointer of Git LFS", "git lfs pull"),
        (becomes("tokenizer.json", LFS), "tokenizer.json is a pointer of Git LFS", "git lfs pull"),
        (becomes("config.json", LFS), "config.json is a pointer of Git LFS", "git lfs pull"),
        (becomes("model.safetensors", ""), "model.safetensors is empty", "copy or download"),
        (cut_short, "model.safetensors is damaged", "copy or download"),
        (lacks_a_shard, "lacks model-00002-of-00002.safetensors", "copy or download"),
        (config_with(quantization_config={"quant_method": "gptq", "bits": 4}), "with GPTQ to 4 bits", "original"),
        (config_with(quantization_config={"quant_method": "awq", "bits": 4}), "with AWQ to 4 bits", "original"),
        (config_with(quantization_config={"quant_method": "fp8"}), "with FP8", "original"),
        (
            config_with(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
            "with bitsandbytes to 4 bits",
            "original",
        ),
        (config_with(quantization={"group_size": 64, "bits": 4}), "quantized to 4 bits", "original"),
        (config_with(quantization_config={"quant_method": {"a": [1]}, "bits": "x"}), "quantized", "original"),
        (config_with(architectures=["LlamaForCausalLM"]), "a LlamaForCausalLM", "only Qwen2ForCausalLM"),
        (only("qwen1_5-0_5b-chat-q8_0.gguf"), "qwen1_5-0_5b-chat-q8_0.gguf: GGUF", "original checkpoint"),
        (instead_of_weights("model-q4.gguf"), "model-q4.gguf: GGUF", "original checkpoint"),
        (instead_of_weights("model.onnx"), "ONNX", "original checkpoint"),
        (only("adapter_config.json", "adapter_model.safetensors"), "an adapter (LoRA)", "into Qwen/Qwen1.5-0.5B-Chat"),
        (only(), "is empty", "put config.json"),
        (only("README.md"), "lacks config.json and tokenizer.json and model.safetensors", "again"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors (or", "again"),
        (
            lambda folder: [
                (folder / "tokenizer.json").rename(folder / "vocab.json"),
                becomes("merges.txt", "x")(folder),
            ],
            "no tokenizer.json",
            "copy it from the original",
        ),
    ],
)
def test_what_is_no_model_is_reported_with_what_to_do(folder, change, what, do):
    change(folder)
    message = refused(folder)
    assert what in message
    assert do in message.partition(what)[2]
    assert str(folder) in message


def test_files_links_and_hub_names_in_the_place_of_a_folder(folder, tmp_path):
    assert "the folder it lies in" in refused(folder / "model.safetensors")
    (tmp_path / "x.gguf").write_text("GGUF")
    assert "is GGUF (llama.cpp), which is not read here" in refused(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").unlink()
    (tmp_path / "link").symlink_to("nowhere")
    assert "is a link to nowhere" in refused(tmp_path / "link")
    assert "nothing is downloaded" in refused(Path("Qwen/Qwen1.5-0.5B-Chat"))
    assert "holds model; name one of them" in refused(tmp_path)


def test_a_broken_link_where_the_full_model_belongs_is_not_passed_over(tmp_path):
    full = tmp_path / "models" / "qwen1.5-0.5b-chat"
    full.parent.mkdir()
    full.symlink_to("/nowhere")
    with pytest.raises(InvalidModel, match="is a link to /nowhere"):
        find_model(None, home=tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may read everything")
def test_a_folder_without_permission_is_reported(folder):
    folder.chmod(0)
    try:
        assert "cannot be read (Permission denied)" in refused(folder)
    finally:
        folder.chmod(0o700)


# ---- the layout of a hub's cache ----


def cached(tmp_path: Path, *commits: str, repository: str = "models--Qwen--Qwen1.5-0.5B-Chat") -> Path:
    """A cache as a hub's library leaves it: the files are links to blobs."""
    top = tmp_path / repository
    (top / "blobs").mkdir(parents=True)
    for commit in commits:
        snapshot = top / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            shutil.copy(BUNDLED / name, top / "blobs" / name)
            (snapshot / name).symlink_to(f"../../blobs/{name}")
    return top


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("models--Qwen--Qwen1.5-0.5B-Chat", "Qwen/Qwen1.5-0.5B-Chat"),
        ("models--gpt2", "gpt2"),
        ("models--a--b--c", "a/b--c"),
    ],
)
def test_a_model_in_a_hubs_cache_has_its_name_and_not_that_of_its_commit(tmp_path, repository, name):
    snapshot = cached(tmp_path, "0a1b2c", repository=repository) / "snapshots" / "0a1b2c"
    (tmp_path / "link").symlink_to(snapshot)
    for model in (snapshot, tmp_path / "link", tmp_path / repository):
        found = find_model(str(model), home=tmp_path)
        assert found.name == name
        Folder.open(found.path)


def test_of_a_cache_the_snapshot_is_taken_that_main_names(tmp_path):
    top = cached(tmp_path, "old", "new")
    assert "with new, old in snapshots/; name one" in refused(top)
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("new")
    assert find_model(str(top), home=tmp_path).path == top / "snapshots" / "new"


def test_a_cache_whose_main_is_empty_has_one_snapshot_and_a_foreign_one_is_refused(tmp_path):
    top = cached(tmp_path, "0a1b2c")
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("")
    assert find_model(str(top), home=tmp_path).path == top / "snapshots" / "0a1b2c"
    (top / "refs" / "main").write_text("0a1b2c", encoding="utf-16")
    assert "UTF-16" in refused(top)


def test_a_download_that_was_broken_off_is_reported(tmp_path):
    top = cached(tmp_path, "0a1b2c")
    (top / "blobs" / "model.safetensors").rename(top / "blobs" / "4d7a.incomplete")
    assert "a download that was broken off" in refused(top)
    assert "holds models--Qwen--Qwen1.5-0.5B-Chat; name one of them" in refused(tmp_path)


# ---- the hints work ----


@pytest.mark.parametrize(
    "names", [("pytorch_model.bin",), ("pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"), ("m.pt",)]
)
def test_the_reported_way_to_convert_pickles_works(folder, names, monkeypatch, capsys):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(names):
        part = {key: tensor for at, (key, tensor) in enumerate(tensors.items()) if at % len(names) == number}
        torch.save(part | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, folder / name)
    (folder / "training_args.bin").write_bytes(b"a pickle of something else")
    message = refused(folder)
    assert names[0] in message and "training_args" not in message
    monkeypatch.setenv("QWEN_AIO_HOME", str(folder.parent / "home"))
    assert main(shlex.split(message.partition("qwen-aio ")[2])) == 0
    made = folder.parent / "home" / "models" / "model"
    assert f"start with it: qwen-aio serve --model {made}" in capsys.readouterr().out
    converted = {name: tensor for path in made.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert all(torch.equal(converted[name], tensor) for name, tensor in tensors.items())
    assert not [path for path in made.iterdir() if path.suffix in (".bin", ".pt")]
    Folder.open(find_model(str(made), home=folder).path)


def test_the_command_prints_one_line_and_no_traceback(folder, capsys):
    dangles("model.safetensors")(folder)
    assert main(["run", "你好", "--model", str(folder)]) == 1
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "is a link to" in output
