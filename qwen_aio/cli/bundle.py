"""One tar for machines without a network: packages, tasks, models, hashes, licences and an installer.

qwen-aio bundle                                              this platform, this Python, the bundled model
qwen-aio bundle --model qwen1.5-0.5b-chat -o bundle.tar      with a model of models/, or of any folder
qwen-aio bundle --model-only --model DIR                     a model for an installation that is there
qwen-aio bundle --platform manylinux_2_28_aarch64 --python 3.12 --wheel FILE

Uses the network, as pip is set up. There, unpack it, and run install.sh (Windows: install.ps1) in its folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qwen_aio import __version__
from qwen_aio.bundling.build import Bundle, check_names, write_models
from qwen_aio.bundling.model_files import BundledFolder
from qwen_aio.bundling.own_wheel import own_wheel
from qwen_aio.bundling.target import Target
from qwen_aio.bundling.wheels import TORCH_INDEX, collect_wheels
from qwen_aio.errors import BundleFailed, InvalidSettings
from qwen_aio.machine.folders import home, state_dir
from qwen_aio.startup.messages import say

BUNDLED = "bundled"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"[qwen-aio-{__version__}.tar]")
    parser.add_argument(
        "--model", action="append", default=[], metavar="DIR", help="a folder, or a name in models/; may be repeated"
    )
    parser.add_argument(
        "--model-only", action="store_true", help="the models alone, to be unpacked into an installation"
    )
    parser.add_argument("--platform", metavar="TAG", help="of another Linux, such as manylinux_2_28_aarch64 [this one]")
    parser.add_argument("--python", metavar="3.N", help="version that it is for [this one]")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="of qwen_aio itself [built from what runs here]")
    parser.add_argument("--torch-index", default=TORCH_INDEX, metavar="URL", help=f"[{TORCH_INDEX}]")


def main(arguments: argparse.Namespace) -> int:
    """Write the tar; the exit status. Raises BundleFailed, InvalidModel, InvalidSettings."""
    try:
        models = tuple(BundledFolder.of(name, home=home()) for name in arguments.model if name != BUNDLED)
        check_names(models)
        if arguments.model_only:
            return _write_models(arguments, models)
        target = Target.of(platform_tag=arguments.platform, python=arguments.python)
        with _work_folder() as folder:
            return _write_bundle(arguments, target, models, folder)
    except OSError as exc:
        raise BundleFailed(f"{exc.filename} cannot be read or written: {exc.strerror or exc}") from exc


def _write_models(arguments: argparse.Namespace, models: tuple[BundledFolder, ...]) -> int:
    if not models:
        raise InvalidSettings(
            "--model-only needs --model DIR; the bundled model is in every installation", param="model"
        )
    path = arguments.output or Path(f"qwen-aio-{__version__}-models.tar")
    _describe(path, write_models(path, models))
    say(f"there, in the folder of the installation: tar -xf {path.name} && .venv/bin/qwen-aio models verify")
    return 0


def _write_bundle(
    arguments: argparse.Namespace, target: Target, models: tuple[BundledFolder, ...], folder: Path
) -> int:
    own = own_wheel(arguments.wheel, target, _made(folder / "own"))
    wheels = collect_wheels(own, target, _made(folder / "wheels"), torch_index=arguments.torch_index, warn=_note)
    bundle = Bundle(target, tuple(wheels), models)
    if not bundle.has_library:
        _note(f"{own.path.name} has no native library; there, the slower forward pass in torch will be used")
    path = arguments.output or Path(f"{bundle.folder}.tar")
    sha256 = bundle.write(path)
    named = ", ".join(("bundled", *(model.name for model in models)))
    say(f"for {target}: {len(wheels)} packages; models: {named}")
    if unknown := [licence.subject for licence in bundle.licences if not licence.is_known]:
        say(f"no licence information came with {', '.join(unknown)}; licenses/SUMMARY.txt says so, too")
    _describe(path, sha256)
    say(f"there: tar -xf {path.name} && sh {bundle.folder}/install.sh")
    return 0


def _describe(path: Path, sha256: str) -> None:
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, SHA-256 {sha256}")


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Empty at the start, and gone at the end; pip keeps what it fetched in a cache of its own. Raises BundleFailed."""
    folder = state_dir() / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"), timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as exc:
        raise BundleFailed(f"another bundle is made in {folder}; wait for its end") from exc
    try:
        shutil.rmtree(folder)
        yield _made(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _note(message: str) -> None:
    say(f"qwen-aio bundle: {message}", file=sys.stderr)
