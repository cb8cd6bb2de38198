"""A folder or an archive that somebody has -> a model folder in home/models, checked and converted.

Only what a model needs is taken over. The new folder appears whole or not at all; nothing is downloaded.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import secrets
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from qwen_aio.errors import InvalidModel
from qwen_aio.models.check import ADAPTER, INDEX, PICKLES, SINGLE, check_folder
from qwen_aio.models.find import CHAT_FILES
from qwen_aio.models.hub_cache import model_name, snapshot_in
from qwen_aio.models.manifest import Manifest, recorded_files

Convert = Callable[[Path, Path], Sequence[str]]  # a pickle, the safetensors file to be made -> names of its tensors

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
OTHER_FILES = (INDEX, "config.json", "tokenizer.json", "LICEN[CS]E*", *CHAT_FILES)
LEFT_OUT = ("training_args.*", "optimizer.*", "scheduler.*", "rng_state*")  # what trainers leave beside a checkpoint
NUM_ENTRIES = 10_000  # of an archive
PIECE = 2**20
# What damaged, encrypted and unusual archives raise.
UNPACKING = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, ValueError, RuntimeError),
)
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


def import_model(
    source: Path, models: Path, *, name: str | None, convert: Convert, verify: Callable[[Path], object]
) -> Path:
    """The new folder in `models`. `verify` raises InvalidModel for a folder that cannot be loaded.

    Raises InvalidModel for what is no model, and where that folder exists; OSError.
    """
    with _read(source, models) as folder:
        target = models / folder_name(name or model_name(folder if source.is_dir() else Path(_stem(source))))
        if target.exists():
            raise InvalidModel(f"{target} exists; choose another name with --name, or delete it")
        with _appearing(target) as partial:
            try:
                _take(folder, partial)
                _convert_all(partial, convert)
                check_folder(partial)
                verify(partial)
                Manifest(source=str(source.resolve()), files=recorded_files(partial)).write(partial)
            except InvalidModel as exc:  # of no use with the name of a folder that is gone
                told = exc.message.replace(str(partial), str(source)).replace(str(folder), str(source))
                raise InvalidModel(told) from exc
    return target


def folder_name(wanted: str) -> str:
    """A folder's name in small letters: Qwen/Qwen1.5-0.5B-Chat -> qwen1.5-0.5b-chat. Raises InvalidModel."""
    name = wanted.rpartition("/")[2].lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name):
        raise InvalidModel(f"{wanted!r} cannot name a folder; give one of letters, digits, dots and dashes with --name")
    return name


@contextmanager
def _read(source: Path, models: Path) -> Iterator[Path]:
    """The folder of the model in `source`; an archive is unpacked beside the models first."""
    if source.is_dir():
        yield snapshot_in(source)
        return
    if not source.name.lower().endswith(SUFFIXES):
        check_folder(source)  # says what a file of another kind is
    with _scratch(models) as unpacked:
        try:
            _unpack(source, unpacked)
        except UNPACKING as exc:
            raise InvalidModel(f"{source} is damaged, or no archive: {exc}") from exc
        found = sorted({path.parent for path in unpacked.rglob("config.json")}, key=lambda path: len(path.parts))
        if not found:
            raise InvalidModel(f"{source} holds no config.json: no model is in it, or only links to one")
        if len(found) > 1 and len(found[1].parts) == len(found[0].parts):
            raise InvalidModel(f"{source} holds more than one model; unpack it and name the folder of one")
        yield found[0]


def _unpack(source: Path, into: Path) -> None:
    """Every file that a model may need, but links. Tar refuses paths out of the folder, zip makes them inner ones."""
    if source.name.lower().endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if _is_taken(entry.filename)]
            _check_room(into, len(entries), sum(entry.file_size for entry in entries))
            for entry in entries:
                archive.extract(entry, into)  # which drops .. and a leading /
        return
    with tarfile.open(source) as archive:
        members = [member for member in archive.getmembers() if member.isfile() and _is_taken(member.name)]
        _check_room(into, len(members), sum(member.size for member in members))
        archive.extractall(into, members, filter="data")
        while archive.fileobj and archive.fileobj.read(PIECE):  # to the checksum at its end
            pass


def _is_taken(name: str) -> bool:
    path = PurePosixPath(name)
    if path.name.startswith(".") or "__MACOSX" in path.parts:
        return False
    return any(map(path.match, (*WEIGHTS, *OTHER_FILES))) and not any(map(path.match, LEFT_OUT))


def _check_room(into: Path, num_entries: int, size: int) -> None:
    if num_entries > NUM_ENTRIES:
        raise InvalidModel(f"the archive has {num_entries} files of a model, more than {NUM_ENTRIES}")
    if size > (free := shutil.disk_usage(into).free):
        raise InvalidModel(f"the archive holds {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {into.parent}")


def _take(folder: Path, partial: Path) -> None:
    """Copy what a model needs, following links; pickles only where there are no safetensors."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and _is_taken(path.name))
    has_weights = any(PurePosixPath(name).match(pattern) for name in names for pattern in WEIGHTS)
    if not has_weights or (folder / ADAPTER).exists():
        check_folder(folder)  # says what is there instead
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    for name in names:
        if not (has_safetensors and name.endswith(PICKLES)):
            shutil.copyfile(folder / name, partial / name)


def _convert_all(partial: Path, convert: Convert) -> None:
    """Each pickle as a safetensors file, and the index that says what is where."""
    pickles = sorted(path for path in partial.iterdir() if path.name.endswith(PICKLES))
    where: dict[str, str] = {}
    for path in pickles:
        made = partial / (f"{path.stem}.safetensors" if len(pickles) > 1 else SINGLE)
        where |= dict.fromkeys(convert(path, made), made.name)
        path.unlink()
    if len(pickles) > 1:
        (partial / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=1), encoding="utf-8")


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `target` at the end, and is removed if anything is raised."""
    with _scratch(target.parent) as scratch:
        partial = scratch / target.name
        partial.mkdir()
        yield partial
        partial.rename(target)


@contextmanager
def _scratch(models: Path) -> Iterator[Path]:
    """A folder beside the models, removed whatever happens."""
    folder = models / f".import-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stem(source: Path) -> str:
    """The archive's name without its endings."""
    suffix = max((suffix for suffix in SUFFIXES if source.name.lower().endswith(suffix)), key=len)
    return source.name[: -len(suffix)]
