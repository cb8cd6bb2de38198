"""Checks a model folder by names and first bytes; an error says what is there and what to do.

Reads no tensor: the engine checks config.json and the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

NEEDED = ("config.json", "tokenizer.json")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth")
OTHERS = {
    ".gguf": "GGUF (llama.cpp)",
    ".onnx": "ONNX",
    ".h5": "HDF5 (Keras)",
    ".msgpack": "msgpack (Flax)",
    ".ckpt": "a training checkpoint",
}
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
NUM_NAMED = 3  # in an error about many files
ORIGINAL = "give the folder of the original checkpoint in safetensors"


def check_folder(folder: Path) -> None:
    """Raises InvalidModel if it cannot be a model folder, OSError if it cannot be read."""
    names = _names_in(folder)
    _check_kind(folder, names)
    for name in sorted(names):
        if name in (*NEEDED, INDEX, "generation_config.json") or name.endswith(".safetensors"):
            _check_file(folder / name)


def _names_in(folder: Path) -> set[str]:
    """Names of all files in `folder`. Raises InvalidModel if it is not a folder, OSError."""
    if folder.is_dir():
        return {path.name for path in folder.iterdir()}
    if folder.is_file() and folder.suffix in OTHERS:
        raise InvalidModel(f"{folder} is {OTHERS[folder.suffix]}, which is not read here; {ORIGINAL}")
    if folder.exists():
        raise InvalidModel(f"{folder} is a file; --model takes the folder it lies in ({folder.parent})")
    if folder.is_symlink():
        raise InvalidModel(f"{folder} is a link to {folder.readlink()}, which is not there; put the model there")
    raise InvalidModel(
        f"no model folder at {folder}; --model takes a folder with safetensors, or 'bundled', and nothing is downloaded"
        " but by qwen-aio models pull"
    )


def _check_kind(folder: Path, names: set[str]) -> None:
    """Raises InvalidModel for missing files, or for files of another format in their place."""
    weights = {SINGLE, INDEX} & names
    if not names:
        raise InvalidModel(f"{folder} is empty; put config.json, tokenizer.json and the safetensors there")
    if ADAPTER in names and not weights:
        raise InvalidModel(f"{folder} holds an adapter (LoRA), not a model; {_how_to_merge(folder)}")
    if not weights:
        _refuse_other_weights(folder, names)
    missing = [name for name in NEEDED if name not in names]
    if missing == ["tokenizer.json"] and {"vocab.json", "merges.txt"} <= names:
        raise InvalidModel(
            f"{folder} has vocab.json and merges.txt but no tokenizer.json; copy it from the original model, or with"
            " transformers installed run AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    inner = sorted(path.parent.name for name in ("config.json", "snapshots") for path in folder.glob(f"*/{name}"))
    if missing and inner:
        raise InvalidModel(f"{folder} is not a model folder but holds {some_names(inner)}; name one of them")
    if not weights:
        missing.append(f"{SINGLE} (or {INDEX})")
    if missing:
        raise InvalidModel(f"{folder} lacks {' and '.join(missing)}; copy or download the whole model folder again")


def _refuse_other_weights(folder: Path, names: set[str]) -> None:
    """Raises InvalidModel for weights in another format, with the way to convert them."""
    for suffix, kind in OTHERS.items():
        if found := sorted(name for name in names if name.endswith(suffix)):
            raise InvalidModel(f"{folder} holds {some_names(found)}: {kind}, which is not read here; {ORIGINAL}")
    for suffix in PICKLES:
        if found := sorted(name for name in names if name.endswith(suffix) and name != f"training_args{suffix}"):
            raise InvalidModel(
                f"{folder} holds {some_names(found)}: pickles, which can run code and are not loaded; this reads their"
                f" tensors alone, and makes a folder of safetensors in models/: qwen-aio models import {folder}"
            )


def _how_to_merge(folder: Path) -> str:
    try:
        base = json.loads(read_text(folder / ADAPTER))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = "its base model"
    return f"merge it into {base} where peft is installed (merge_and_unload, then save_pretrained) and give that folder"


def _check_file(path: Path) -> None:
    """Raises InvalidModel for an empty file, a broken link or a pointer; OSError."""
    if path.is_symlink() and not path.exists():
        raise InvalidModel(
            f"{path} is a link to {path.readlink()}, which is not there: a download that was broken off, or a copy of"
            " the links alone; download or copy the model again, following links (cp -rL)"
        )
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise InvalidModel(
            f"{path} is a pointer of Git LFS, not the file itself; run git lfs pull where it was cloned and copy again"
        )
    if not start:
        raise InvalidModel(f"{path} is empty; copy or download it again")


def some_names(names: Sequence[str]) -> str:
    first = ", ".join(names[:NUM_NAMED])
    return f"{first} and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else first
