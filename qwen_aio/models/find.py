"""Which model folder a run takes, and its fingerprint. Never downloads; reads no tensor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from qwen_aio.errors import InvalidModel

BUNDLED = Path(__file__).resolve().parent / "bundled"
FULL_MODEL = "qwen1.5-0.5b-chat"  # folder in home/models that is taken before the bundled one
NEEDED = ("config.json", "tokenizer.json")
PIECE = 2**24  # bytes read at once


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model, and why it was taken."""

    path: Path
    name: str
    is_bundled: bool
    chosen_by: str


def find_model(model: str | None, *, home: Path) -> ModelFolder:
    """`model` ("bundled" or a folder) if given, else the full model in home if it is there, else the bundled one.

    Raises InvalidModel for a folder that cannot be one.
    """
    if model == "bundled":
        return ModelFolder(_checked(BUNDLED), "qwen-aio-bundled", True, "asked for")
    if model is not None:
        return ModelFolder(_checked(Path(model)), Path(model).resolve().name, False, "asked for")
    full = home / "models" / FULL_MODEL
    if full.is_dir():
        return ModelFolder(_checked(full), FULL_MODEL, False, f"found in {full.parent}")
    return ModelFolder(_checked(BUNDLED), "qwen-aio-bundled", True, f"nothing in {full}")


def model_sha(folder: Path) -> str:
    """Sixteen hex digits over everything that decides what the model says: weights, config and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted([*(folder / name for name in NEEDED), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name}:{path.stat().st_size};".encode())
        digest.update(_file_digest(path))
    return digest.hexdigest()[:16]


def _file_digest(path: Path) -> bytes:
    """SHA-256. Whoever reads in small pieces waits for the other threads after each of them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.digest()


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidModel(f"no model folder at {folder}; --model takes a folder with safetensors, or 'bundled'")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise InvalidModel(f"{folder} lacks {' and '.join(missing)}: not a model folder saved by transformers")
    return folder
