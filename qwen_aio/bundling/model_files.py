"""A model's folder as it goes into a bundle: its files as recorded, and the record itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from qwen_aio.bundling.archive import Entry
from qwen_aio.bundling.licences import Licence
from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text
from qwen_aio.models.check import PICKLES
from qwen_aio.models.find import BUNDLED, find_model
from qwen_aio.models.hub_cache import model_name
from qwen_aio.models.importing import folder_name
from qwen_aio.models.manifest import MANIFEST, Manifest, differences, read_manifest, recorded_files


@dataclass(frozen=True)
class BundledFolder:
    """A model that goes along: `path` here, models/`name` there."""

    path: Path
    name: str
    manifest: Manifest

    @classmethod
    def of(cls, model: str, *, home: Path) -> BundledFolder:
        """A folder, or a name in home/models. Raises OSError, InvalidModel for one that is unusable or was changed."""
        wanted = model if Path(model).exists() else str(home / "models" / folder_name(model))
        path = find_model(wanted, home=home).path
        manifest = read_manifest(path)
        if manifest is None:
            return cls(path, folder_name(model_name(path)), _recorded_now(path))
        if wrong := differences(path, manifest):
            raise InvalidModel(
                f"{path} is not as it was recorded: {'; '.join(wrong)}; qwen-aio models verify says more"
            )
        return cls(path, folder_name(model_name(path)), manifest)

    @property
    def entries(self) -> list[Entry]:
        """Its files, links followed."""
        record = self.manifest.model_dump_json(indent=1, exclude_none=True) + "\n"
        files = [Entry(f"models/{self.name}/{name}", self.path / name) for name in self.manifest.files]
        return [*files, Entry(f"models/{self.name}/{MANIFEST}", record.encode())]

    @property
    def licence(self) -> Licence:
        """Raises InvalidModel."""
        named = [name for name in self.manifest.files if name.upper().startswith(("LICENSE", "LICENCE"))]
        return Licence(f"model-{self.name}", self.manifest.licence, _texts(self.path, named))


def licence_of_bundled_model() -> Licence:
    """Its card says it. Raises InvalidModel."""
    return Licence("model-bundled", "see the section on its licence", _texts(BUNDLED, ["README.md"]))


def _recorded_now(path: Path) -> Manifest:
    """Of a folder that was copied here by hand. Pickles are no part of a model."""
    try:
        return Manifest(source=path.name, files=recorded_files(path, _plain(path)))
    except ValidationError as exc:
        raise InvalidModel(f"{path} has a file whose name is no plain one: {exc.errors()[0]['loc'][-1]}") from exc


def _plain(path: Path) -> list[str]:
    return sorted(
        each.name
        for each in path.iterdir()
        if each.is_file() and each.name[0] != "." and not each.name.endswith(PICKLES)
    )


def _texts(folder: Path, names: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((name, read_text(folder / name)) for name in sorted(names))
    except (OSError, ValueError) as exc:
        raise InvalidModel(f"the licence in {folder} cannot be read: {exc}") from exc
