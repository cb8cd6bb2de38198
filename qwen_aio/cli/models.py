"""The models on this machine: list and verify them, pull one from a hub, or import one that lies here.

qwen-aio models list
qwen-aio models pull Qwen/Qwen1.5-0.5B-Chat        1.2 GB; its licence allows research and evaluation only
qwen-aio models pull Qwen/Qwen2.5-0.5B-Instruct    1.0 GB; Apache-2.0
qwen-aio models verify
qwen-aio models import ~/Downloads/Qwen1.5-0.5B-Chat

New folders lie in models/. Only pull uses the network: the hub is https://huggingface.co, or HF_ENDPOINT;
HTTPS_PROXY and NO_PROXY count, and HF_TOKEN for models that are not open to everybody.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qwen_aio.config import Settings
from qwen_aio.engine.choice import EngineKind, choose_engine, reads_chat_template, size_of
from qwen_aio.engine.config import read_config, refuse_quantized
from qwen_aio.errors import InvalidModel
from qwen_aio.machine.folders import home
from qwen_aio.models.check import check_folder
from qwen_aio.models.find import BUNDLED, CHAT_FILES, FULL_MODEL, ModelFolder, find_model, model_folders, model_sha
from qwen_aio.models.importing import SUFFIXES, folder_name, import_model
from qwen_aio.models.manifest import Manifest, differences, read_manifest
from qwen_aio.models.pulling import staged
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.log import one_line
from qwen_aio.startup.messages import say, translated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every model here: engine, size, licence, origin, and which one is taken")
    add_settings_flags(listing, "model", "engine")
    pulling = actions.add_parser("pull", help="download a model from a hub into models/; a stopped pull goes on")
    pulling.add_argument("address", metavar="NAME[@REVISION]", help="OWNER/NAME at the hub; a branch, tag or commit")
    pulling.add_argument("--name", help="of the new folder [NAME, in small letters]")
    verifying = actions.add_parser("verify", help="compare every file with the hash that was recorded when it came")
    verifying.add_argument("name", nargs="?", help="a folder's name in models/, or a folder [all in models/]")
    importing = actions.add_parser("import", help="copy a model from a folder or an archive into models/")
    importing.add_argument("path", type=Path, help=f"a folder, or an archive ({', '.join(SUFFIXES)})")
    importing.add_argument("--name", help="of the new folder [that of the source, in small letters]")


def main(arguments: argparse.Namespace) -> int:
    """The exit status: 1 if verify found a difference."""
    try:
        match arguments.action:
            case "list":
                _list(settings_from(arguments))
            case "pull":
                _pull(arguments.address, arguments.name)
            case "verify":
                return _verify(arguments.name)
            case "import":
                _import(arguments.path, arguments.name)
    except OSError as exc:
        place = exc.filename or getattr(arguments, "path", home() / "models")
        raise InvalidModel(f"{place} cannot be read or written: {exc.strerror or exc}") from exc
    return 0


def _list(settings: Settings) -> None:
    try:
        chosen = find_model(settings.model, home=home())
    except InvalidModel as exc:
        say(f"no model is taken: {exc.message}")
        chosen = None
    folders = model_folders(home())
    if chosen and not any(chosen.path.is_relative_to(folder) for folder in folders):
        folders.append(chosen.path)
    for folder in folders:
        _say_folder(folder, chosen, asked=settings.engine)
    for listing, num_there in staged(home() / "models"):
        there = f"{num_there / 1e6:.0f} of {listing.num_bytes / 1e6:.0f} MB"
        say(f"  {listing.hub_name}: not finished, {there} are here; the same pull goes on")


def _say_folder(folder: Path, chosen: ModelFolder | None, *, asked: str) -> None:
    """A line with the name, and what is known below it; the model that is taken has a star."""
    is_chosen = chosen is not None and chosen.path.is_relative_to(folder)
    name = f"* {folder.name}: taken, {chosen.chosen_by}" if chosen and is_chosen else f"  {folder.name}"
    try:
        path = find_model(str(folder), home=home()).path  # of a hub's cache, a snapshot in it
        about = [_describe_engine(path, asked=asked), _describe_origin(path)]
    except InvalidModel as exc:
        about = [exc.message]
    say(one_line(name))
    for line in (str(folder), *about):
        say(f"    {translated(one_line(line))}")


def _describe_engine(folder: Path, *, asked: str) -> str:
    kind = choose_engine(folder, asked=asked).kind
    num_weights = size_of(folder, kind).num_weights
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    architectures = read_config(folder / "config.json").get("architectures") or ["unknown architecture"]
    return f"{architectures[0]}, {num_weights / 1e6:.0f} million weights in {stored / 1e6:.0f} MB, engine {kind}"


def _describe_origin(folder: Path) -> str:
    if folder == BUNDLED:
        return "bundled; its licence is in README.md there"
    manifest = read_manifest(folder)
    if manifest is None:
        return "licence unknown; no hashes recorded"
    source = f"{manifest.source}, commit {manifest.commit}" if manifest.commit else manifest.source
    return f"licence {manifest.licence or 'unknown'}; from {source}; hashes recorded {manifest.recorded_at}"


def _verify(name: str | None) -> int:
    """Compare one model or all; the exit status."""
    if name is not None:
        folder = Path(name) if Path(name).is_dir() else home() / "models" / folder_name(name)
        manifest = read_manifest(folder)
        if manifest is None:
            check_folder(folder)
            raise InvalidModel(f"{folder} has no manifest.json, so there is nothing to compare its files with")
        return 0 if _is_right(folder, manifest) else 1
    known = [(folder, manifest) for folder in model_folders(home())[1:] if (manifest := read_manifest(folder))]
    if not known:
        say(f"no model in {home() / 'models'} has recorded hashes")
    right = [_is_right(folder, manifest) for folder, manifest in known]
    return 0 if all(right) else 1


def _is_right(folder: Path, manifest: Manifest) -> bool:
    wrong = differences(folder, manifest)
    if not wrong:
        say(f"{folder}: {len(manifest.files)} files are as recorded")
        return True
    say(f"{folder}:")
    for line in wrong:
        say(f"    {translated(line)}")
    return False


def _pull(address: str, name: str | None) -> None:
    from qwen_aio.cli.pull import pull

    models = home() / "models"
    _describe_new(pull(address, models, name=name, check_small=_check_config, verify=_verify_folder))


def _import(source: Path, name: str | None) -> None:
    from qwen_aio.engine.model.pickled import convert_pickle

    models = home() / "models"
    _describe_new(import_model(source, models, name=name, convert=convert_pickle, verify=_verify_folder))


def _describe_new(folder: Path) -> None:
    """Say what was made, and what to do next."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    choice = choose_engine(folder, asked="auto")
    sha = model_sha(folder, more=CHAT_FILES if reads_chat_template(folder, choice.kind) else ())
    say(f"{folder}: {size / 1e6:.0f} MB, hash {sha}")
    say(str(choice))
    chosen = "" if folder.name == FULL_MODEL else f" --model {folder}"
    say(f"start with it: qwen-aio serve{chosen}")


def _verify_folder(folder: Path) -> None:
    """Raises InvalidModel for a folder that no engine loads."""
    from qwen_aio.engine.weights.folder import Folder

    if _check_config(folder) == "qwen":
        Folder.open(folder).tokenizer  # noqa: B018  read to be checked


def _check_config(folder: Path) -> EngineKind:
    """The engine of a folder, whose weights may still be missing. Raises InvalidModel for what no engine computes."""
    choice = choose_engine(folder, asked="auto")
    size_of(folder, choice.kind)
    if choice.kind == "transformers":
        from qwen_aio.engine.foreign.load import read_prompts

        path = folder / "config.json"
        refuse_quantized(path, read_config(path))
        read_prompts(folder)
    return choice.kind
