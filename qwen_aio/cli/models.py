"""Take over a model that lies on this machine: a folder or an archive, checked and converted.

qwen-aio models import ~/Downloads/Qwen1.5-0.5B-Chat
qwen-aio models import qwen2.5-0.5b-instruct.tar.gz --name qwen2.5

The new folder lies in models/; nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qwen_aio.engine.choice import choose_engine, reads_chat_template
from qwen_aio.errors import InvalidModel
from qwen_aio.machine.folders import home
from qwen_aio.models.find import CHAT_FILES, FULL_MODEL, model_sha
from qwen_aio.models.importing import SUFFIXES, import_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="copy a model from a folder or an archive into models/")
    importing.add_argument("path", type=Path, help=f"a folder, or an archive ({', '.join(SUFFIXES)})")
    importing.add_argument("--name", help="of the new folder [that of the source, in small letters]")


def main(arguments: argparse.Namespace) -> int:
    """Import and say what to do next; the exit status."""
    from qwen_aio.engine.model.pickled import convert_pickle

    models = home() / "models"
    try:
        folder = import_model(
            arguments.path,
            models,
            name=arguments.name,
            convert=convert_pickle,
            verify=_verify,
        )
    except OSError as exc:
        raise InvalidModel(
            f"{exc.filename or arguments.path} cannot be read or written: {exc.strerror or exc}"
        ) from exc
    size = sum(path.stat().st_size for path in folder.iterdir())
    choice = choose_engine(folder, asked="auto")
    sha = model_sha(folder, more=CHAT_FILES if reads_chat_template(folder, choice.kind) else ())
    print(f"{folder}: {size / 1e6:.0f} MB, hash {sha}", choice, sep="\n")
    chosen = "" if folder.name == FULL_MODEL else f" --model {folder}"
    print(f"start with it: qwen-aio serve{chosen}")
    return 0


def _verify(folder: Path) -> None:
    """Raises InvalidModel for a folder that no engine loads."""
    from qwen_aio.engine.choice import size_of
    from qwen_aio.engine.foreign.load import read_prompts
    from qwen_aio.engine.load import Folder

    choice = choose_engine(folder, asked="auto")
    if choice.kind == "qwen":
        Folder.open(folder).tokenizer  # noqa: B018  read to be checked
        return
    size_of(folder, choice.kind)
    read_prompts(folder)
