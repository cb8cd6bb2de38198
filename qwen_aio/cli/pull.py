"""`qwen-aio models pull`: the environment's variables, and what is shown on the way."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from qwen_aio.models.hub import Hub
from qwen_aio.models.importing import folder_name
from qwen_aio.models.listing import HubFile, Listing
from qwen_aio.models.pulling import Check, HubAddress, check_pulled, pull_model
from qwen_aio.startup.messages import say, translated

ENDPOINT = "https://huggingface.co"
RESEARCH_LICENCE = "tongyi-qianwen-research"
NUM_STEPS = 10  # lines about bytes, where no bar can be shown


class ShownProgress:
    """Size and licence first; then a bar on a terminal, else lines."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._bar: tqdm | None = None
        self._num_bytes, self._total = 0, 0

    def begin(self, listing: Listing, target: Path, *, num_there: int) -> None:
        page = f"{self._endpoint}/{listing.hub_name}"
        there = f", of which {num_there / 1e6:.0f} MB are here already" if num_there else ""
        say(f"{listing.hub_name}: {listing.num_bytes / 1e6:.0f} MB in {len(listing.files)} files{there}")
        say(_describe_licence(listing, page))
        say(f"from {page}, commit {listing.commit} ({listing.revision})")
        say(f"to {target}", "Ctrl-C stops, and the same command goes on")
        self._bar = tqdm(total=listing.num_bytes, initial=num_there, unit="B", unit_scale=True, disable=None)
        self._num_bytes, self._total = num_there, listing.num_bytes

    def advance(self, num_bytes: int) -> None:
        before, self._num_bytes = self._num_bytes, self._num_bytes + num_bytes
        assert self._bar is not None, "begin comes first"
        self._bar.update(num_bytes)
        if self._bar.disable and self._step(before) != self._step(self._num_bytes):
            say(f"{self._num_bytes / max(self._total, 1):.0%} of {self._total / 1e6:.0f} MB")

    def end_file(self, file: HubFile) -> None:
        tqdm.write(translated(f"{file.name}: {file.size} bytes, as listed"))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _step(self, num_bytes: int) -> int:
        return num_bytes * NUM_STEPS // max(self._total, 1)


def pull(address: str, models: Path, *, name: str | None, check_small: Check, verify: Check) -> Path:
    """The folder of the model; one that is there already is compared with what was recorded.

    Raises what `pull_model` raises, InvalidSettings.
    """
    asked = HubAddress.parse(address)
    target = models / folder_name(name or asked.hub_name)
    if target.exists():
        manifest = check_pulled(target, asked)
        say(f"{asked.hub_name} is here, commit {manifest.commit}: {len(manifest.files)} files are as recorded")
        return target
    return asyncio.run(_fetch(asked, target, check_small, verify))


async def _fetch(asked: HubAddress, target: Path, check_small: Check, verify: Check) -> Path:
    async with Hub(os.environ.get("HF_ENDPOINT") or ENDPOINT, token=os.environ.get("HF_TOKEN", "")) as hub:
        progress = ShownProgress(hub.endpoint)
        try:
            await pull_model(hub, asked, target, progress=progress, check_small=check_small, verify=verify)
        except asyncio.CancelledError:
            say("stopped; the same command goes on", file=sys.stderr)
            raise
        finally:
            progress.close()
    return target


def _describe_licence(listing: Listing, page: str) -> str:
    if listing.licence is None:
        return f"licence: none is stated; see {page}"
    research = ", for research and evaluation only" if listing.licence == RESEARCH_LICENCE else ""
    return f"licence: {listing.licence}{research}; see {page}"
