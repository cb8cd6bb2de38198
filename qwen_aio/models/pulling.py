"""A model at a hub -> a model folder in home/models, resumed where it broke off, checked, with a manifest.

Until it is whole it grows in models/.pull-NAME/, beside the hub's listing of the commit that was found
first: what comes later is held to that. The new folder appears whole or not at all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from qwen_aio.errors import InvalidModel, InvalidSettings
from qwen_aio.files import read_text, replacing
from qwen_aio.models.check import check_folder
from qwen_aio.models.listing import HubFile, Listing
from qwen_aio.models.manifest import FileRecord, Manifest, differences, read_manifest
from qwen_aio.models.partial_file import PartialFile

if TYPE_CHECKING:
    from qwen_aio.models.hub import Hub  # loads the HTTP client

STAGING = ".pull-"
LISTING = "listing.json"
MAIN = "main"
PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
ADDRESS = re.compile(rf"({PART}(?:/{PART})?)(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?")

Check = Callable[[Path], object]  # raises InvalidModel for a folder


class PullProgress(Protocol):
    """Who is told how far a pull is."""

    def begin(self, listing: Listing, target: Path, *, num_there: int) -> None:
        """Before the first file; `num_there`: bytes that an earlier run left."""

    def advance(self, num_bytes: int) -> None:
        """So many bytes more; negative for bytes that were lost again."""

    def end_file(self, file: HubFile) -> None:
        """The file is whole and right."""


@dataclass(frozen=True)
class HubAddress:
    """OWNER/NAME[@REVISION], as a user gives it."""

    hub_name: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Raises InvalidSettings."""
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise InvalidSettings(
                f"{text!r} names no model at a hub; give OWNER/NAME as on its page, such as Qwen/Qwen1.5-0.5B-Chat,"
                " and a branch, tag or commit as OWNER/NAME@REVISION"
            )
        return cls(found[1], found[2])


async def pull_model(
    hub: Hub, address: HubAddress, target: Path, *, progress: PullProgress, check_small: Check, verify: Check
) -> None:
    """Make the folder `target`. `check_small` gets it before the weights are there, `verify` with them.

    Raises what Hub raises, InvalidModel, OSError. Where the connection is lost, the next pull goes on.
    """
    with _staging(target.with_name(f"{STAGING}{target.name}")) as staging:
        listing = await _begun(hub, staging, address)
        partial = staging / target.name
        partial.mkdir(exist_ok=True)
        num_there = _num_bytes(partial)
        _check_room(listing.num_bytes - num_there, staging)
        progress.begin(listing, target, num_there=num_there)
        try:
            records = await _fetch_all(hub, listing, partial, progress=progress, check_small=check_small)
            check_folder(partial)
            verify(partial)
        except InvalidModel as exc:  # no connection will ever cure it
            shutil.rmtree(staging, ignore_errors=True)
            raise InvalidModel(exc.message.replace(str(partial), listing.hub_name)) from exc
        _manifest(hub, listing, records).write(partial)
        partial.rename(target)
        shutil.rmtree(staging, ignore_errors=True)


def check_pulled(folder: Path, address: HubAddress) -> Manifest:
    """The manifest of a model that was pulled already. Raises InvalidModel for another one, or damage; OSError."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.hub_name != address.hub_name:
        raise InvalidModel(
            f"{folder} exists and was not pulled from {address.hub_name}; choose another name with --name"
        )
    if address.revision not in (None, manifest.revision, manifest.commit):
        raise InvalidModel(
            f"{folder} holds commit {manifest.commit} ({manifest.revision}); for {address.revision} choose another name"
            " with --name, or delete the folder"
        )
    if wrong := differences(folder, manifest):
        raise InvalidModel(f"{folder} is not as it was pulled: {'; '.join(wrong)}; delete the folder and pull again")
    return manifest


def staged(models: Path) -> Iterator[tuple[Listing, int]]:
    """Pulls that are not finished, and how many bytes are there. Raises OSError."""
    for staging in sorted(models.glob(f"{STAGING}*")):
        partial = staging / staging.name.removeprefix(STAGING)
        if partial.is_dir() and (listing := _saved_listing(staging)):
            yield listing, _num_bytes(partial)


async def _begun(hub: Hub, staging: Path, address: HubAddress) -> Listing:
    """The listing that this pull is held to: that of the run that began it, else the hub's of now."""
    revision = address.revision or MAIN
    listing = _saved_listing(staging)
    if listing is None:
        _remove_partials(staging)
        listing = await hub.listing(address.hub_name, revision)
        with replacing(staging / LISTING) as path:
            path.write_text(listing.model_dump_json(), encoding="utf-8")
    if (listing.hub_name, listing.revision) != (address.hub_name, revision):
        raise InvalidModel(
            f"{staging} holds an unfinished pull of {listing.hub_name}@{listing.revision}; finish that one, choose"
            " another name with --name, or delete that folder"
        )
    return listing


def _remove_partials(staging: Path) -> None:
    """What came of a listing that cannot be read any more. Raises OSError."""
    for partial in filter(Path.is_dir, staging.iterdir()):
        shutil.rmtree(partial)


def _saved_listing(staging: Path) -> Listing | None:
    try:
        return Listing.model_validate_json(read_text(staging / LISTING))
    except (FileNotFoundError, ValueError):
        return None


async def _fetch_all(
    hub: Hub, listing: Listing, partial: Path, *, progress: PullProgress, check_small: Check
) -> dict[str, FileRecord]:
    """Every file, checked against its listed hash; what came."""
    records: dict[str, FileRecord] = {}
    has_weights = False
    for file in listing.files:
        if file.name.endswith(".safetensors") and not has_weights:
            check_small(partial)
            has_weights = True
        with PartialFile(partial / file.name, file) as arriving:
            await hub.fetch(listing, file, arriving, advance=progress.advance)
            records[file.name] = arriving.check()
        progress.end_file(file)
    return records


def _manifest(hub: Hub, listing: Listing, records: dict[str, FileRecord]) -> Manifest:
    return Manifest(
        source=f"{hub.endpoint}/{listing.hub_name}",
        files=records,
        hub_name=listing.hub_name,
        revision=listing.revision,
        commit=listing.commit,
        licence=listing.licence,
    )


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _check_room(num_bytes: int, folder: Path) -> None:
    if num_bytes > (free := shutil.disk_usage(folder).free):
        raise InvalidModel(f"{num_bytes / 1e9:.1f} GB are to come, and {free / 1e9:.1f} GB are free in {folder.parent}")


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """The folder that a pull grows in; removed if it has no listing. Raises InvalidModel if another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as exc:
        raise InvalidModel(f"another pull is writing {folder}; wait for its end") from exc
    try:
        yield folder
    finally:
        if folder.exists() and not (folder / LISTING).exists():
            shutil.rmtree(folder, ignore_errors=True)  # before another pull can begin in it
        lock.release()
