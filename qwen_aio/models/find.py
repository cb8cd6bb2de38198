"""The model folder of a run, and its fingerprint. Downloads nothing, reads no tensor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_aio.errors import InvalidModel
from qwen_aio.models.check import NEEDED, check_folder
from qwen_aio.models.hub_cache import model_name, snapshot_in
from qwen_aio.models.known_hashes import KnownHashes

BUNDLED = Path(__file__).resolve().parent / "bundled"
FULL_MODEL = "qwen1.5-0.5b-chat"  # folder in home/models that is taken before the bundled one
FULL_MODEL_AT_HUB = "Qwen/Qwen1.5-0.5B-Chat"
# Beside weights, config and tokenizer, what decides the answers of a model that brings its own chat template.
CHAT_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
NOTHING_KNOWN = KnownHashes()


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model, and why it was chosen."""

    path: Path
    name: str
    is_bundled: bool
    chosen_by: str


def find_model(model: str | None, *, home: Path) -> ModelFolder:
    """`model` ("bundled" or a folder) if given, else the full model in home, else the bundled one.

    Raises InvalidModel for a folder that cannot be loaded.
    """
    if model == "bundled":
        return ModelFolder(_checked(BUNDLED), "qwen-aio-bundled", True, "asked for")
    if model is not None:
        path = _checked(Path(model))
        return ModelFolder(path, model_name(path), False, "asked for")
    full = home / "models" / FULL_MODEL
    if os.path.lexists(full):  # a file or a broken link there is an error, not skipped
        return ModelFolder(_checked(full), FULL_MODEL, False, f"found in {full.parent}")
    why = f"nothing in {full}; qwen-aio models pull {FULL_MODEL_AT_HUB} fetches it"
    return ModelFolder(_checked(BUNDLED), "qwen-aio-bundled", True, why)


def model_folders(home: Path) -> list[Path]:
    """The bundled model's folder, and what lies in home/models; unchecked. Raises OSError."""
    models = home / "models"
    there = models.iterdir() if models.is_dir() else ()
    return [BUNDLED, *sorted(path for path in there if path.is_dir() and path.name[0] != ".")]


def model_sha(folder: Path, *, more: Sequence[str] = (), known: KnownHashes = NOTHING_KNOWN) -> str:
    """Sixteen hex digits over weights, config and tokenizer, which determine the output.

    `more`: names of other files that do; those that are missing count as missing. `known`: spares
    reading what has been read before.
    """
    digest = hashlib.sha256()
    for name in more:
        path = folder / name
        digest.update(f"{name}:{path.is_file()};".encode() + (known.digest(path) if path.is_file() else b""))
    for path in sorted([*(folder / name for name in NEEDED), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name}:{path.stat().st_size};".encode() + known.digest(path))
    return digest.hexdigest()[:16]


def _checked(folder: Path) -> Path:
    """The folder to load: `folder`, or the snapshot in a hub's cache. Raises InvalidModel."""
    try:
        found = snapshot_in(folder)
        check_folder(found)
    except OSError as exc:
        raise InvalidModel(
            f"{folder} cannot be read ({exc.strerror}: {exc.filename}); let the user who runs this program read it"
        ) from exc
    return found
