"""What a model hub says about one revision of a model, and which of its files are pulled.

The answer is an unknown server's: names, sizes and hashes are checked before anything is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qwen_aio.errors import InvalidModel
from qwen_aio.models.check import ADAPTER, INDEX, NEEDED, ORIGINAL, OTHERS, PICKLES, SINGLE, some_names
from qwen_aio.models.find import CHAT_FILES
from qwen_aio.models.manifest import PLAIN_NAME, Commit, PlainName, Sha256

NUM_SIBLINGS = 10_000
MAX_FILE_BYTES = 2**40
PLAIN = re.compile(PLAIN_NAME)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
SMALL_FILES = (INDEX, *NEEDED, *CHAT_FILES, "LICEN[CS]E*", "README.md")


class HubFile(BaseModel):
    """A file at a hub. Git LFS names its SHA-256; of others there is git's own hash."""

    model_config = ConfigDict(frozen=True, strict=True)

    name: PlainName
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    sha256: Sha256 | None = None
    git_sha1: Commit | None = None

    @model_validator(mode="after")
    def _has_hash(self) -> HubFile:
        if self.sha256 is None and self.git_sha1 is None:
            raise ValueError(f"there is no hash of {self.name}")
        return self


class Listing(BaseModel):
    """One commit of a model at a hub: the files that are pulled, the small ones first."""

    model_config = ConfigDict(frozen=True, strict=True)

    hub_name: str
    revision: str  # as it was asked for
    commit: Commit
    licence: str | None
    files: list[HubFile]

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)


class _Answered(BaseModel):
    model_config = ConfigDict(strict=True)


class _Lfs(_Answered):
    sha256: str
    size: int


class _Sibling(_Answered):
    rfilename: str
    size: int | None = None
    blobId: str | None = None  # noqa: N815  the hub's name
    lfs: _Lfs | None = None


class _HubAnswer(_Answered):
    sha: str
    siblings: Annotated[list[_Sibling], Field(max_length=NUM_SIBLINGS)]
    cardData: dict[str, Any] | None = None  # noqa: N815  the hub's name
    tags: list[str] = []


def read_listing(body: bytes, *, hub_name: str, revision: str) -> Listing:
    """What /api/models/NAME/revision/REVISION?blobs=true answered.

    Raises InvalidModel for a repository without a model that can be pulled, ValueError for what is no hub's answer.
    """
    answer = _HubAnswer.model_validate_json(body)
    siblings = [each for each in answer.siblings if PLAIN.fullmatch(each.rfilename)]
    names = {each.rfilename for each in siblings}
    _check_names(hub_name, names)
    wanted = [each for each in siblings if _is_wanted(each.rfilename, names)]
    if len({each.rfilename.casefold() for each in wanted}) < len(wanted):
        raise ValueError("two of its files have the same name")
    files = [_file(each) for each in wanted]
    return Listing(
        hub_name=hub_name,
        revision=revision,
        commit=answer.sha,
        licence=_licence(answer),
        files=sorted(files, key=lambda file: (file.name.endswith(".safetensors"), file.name)),
    )


def _check_names(hub_name: str, names: Set[str]) -> None:
    """Raises InvalidModel, which says what is there instead of a model in safetensors."""
    if names & {SINGLE, INDEX}:
        if missing := [name for name in NEEDED if name not in names]:
            raise InvalidModel(f"{hub_name} lacks {' and '.join(missing)}, without which no model is computed here")
        return
    if ADAPTER in names:
        raise InvalidModel(f"{hub_name} holds an adapter (LoRA), not a model; merge it into its base model first")
    for suffix, kind in OTHERS.items():
        if found := _with(names, suffix):
            raise InvalidModel(f"{hub_name} holds {some_names(found)}: {kind}, which is not read here; {ORIGINAL}")
    if found := _with(names, *PICKLES):
        raise InvalidModel(
            f"{hub_name} holds {some_names(found)}: pickles, which can run code and are not pulled; once they are on"
            " this machine, qwen-aio models import reads their tensors alone"
        )
    raise InvalidModel(f"{hub_name} holds neither {SINGLE} nor {INDEX}: no chat model of one folder")


def _with(names: Set[str], *suffixes: str) -> Sequence[str]:
    return sorted(name for name in names if name.endswith(suffixes))


def _is_wanted(name: str, names: Set[str]) -> bool:
    """Whether the engine reads the file, or people do. Of two forms of the weights, the one that the engine takes."""
    if SINGLE in names:
        return name == SINGLE or (name != INDEX and _is_small(name))
    return SHARD.fullmatch(name) is not None or _is_small(name)


def _is_small(name: str) -> bool:
    return any(map(PurePosixPath(name).match, SMALL_FILES))


def _file(sibling: _Sibling) -> HubFile:
    if sibling.lfs is not None:
        return HubFile(name=sibling.rfilename, size=sibling.lfs.size, sha256=sibling.lfs.sha256)
    if sibling.size is None:
        raise ValueError(f"there is no size of {sibling.rfilename}")
    return HubFile(name=sibling.rfilename, size=sibling.size, git_sha1=sibling.blobId)


def _licence(answer: _HubAnswer) -> str | None:
    """Its name, printable; `license: other` has another field for it."""
    card = answer.cardData or {}
    tagged = [tag.removeprefix("license:") for tag in answer.tags if tag.startswith("license:")]
    stated = [card.get("license_name"), card.get("license"), *tagged]
    found = next((each for each in stated if isinstance(each, str) and each.strip()), None)
    return found and "".join(letter if letter.isprintable() else "?" for letter in found)[:100]
