"""Small wheels with pip's layout, indexes of them, and what a bundle is made of in these tests."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from qwen_aio import __version__

NOTHING: Mapping[str, str] = {}
PRINTS_ITSELF = """\
import json, os, sys
from importlib.resources import files
def start(program="qwen-aio", command=None):
    if sys.argv[1:] == ["doctor"]:
        print("doctor: the clock is wrong")
        return {doctor}
    said = dict(edition="{edition}", program=program, command=command, arguments=sys.argv[1:], prefix=sys.prefix)
    print(json.dumps(said))
    return 0
"""


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] = NOTHING,
    metadata: Sequence[str] = (),
    described: Mapping[str, str] = NOTHING,
    tag: str = "py3-none-any",
) -> Path:
    """A wheel with `files`, and in its dist-info `metadata` lines and the files `described`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *metadata]
    content = {
        **(files or {f"{module}/__init__.py": ""}),
        f"{info}/METADATA": "\n".join(lines) + "\n\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **{f"{info}/{inner}": text for inner, text in described.items()},
    }
    record = [f"{inner},sha256={_urlsafe(text)},{len(text.encode())}" for inner, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join((*record, f"{info}/RECORD,,")) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in content.items():
            archive.writestr(zipfile.ZipInfo(inner), text)
    return path


def _urlsafe(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def make_own_wheel(
    folder: Path,
    *,
    edition: str = "first",
    tasks: Mapping[str, str] = NOTHING,
    requires: Sequence[str] = ("torch==2.13.0", "tinydep==1.0"),
    doctor: int | None = None,
    tag: str = "py3-none-any",
    version: str = __version__,
) -> Path:
    """A stand-in for ours, whose programs print what they were started with. `doctor`: exit status of that command."""
    prompts = tasks or {"chat/task.toml": "first", "chat/prompt.j2": "first", "sentiment/task.toml": "first"}
    commands = {"serve": "serve"} | ({} if doctor is None else {"doctor": "doctor"})
    files = {
        "qwen_aio/__init__.py": "",
        "qwen_aio/doorway.py": PRINTS_ITSELF.format(edition=edition, doctor=doctor),
        "qwen_aio/cli/__init__.py": "",
        "qwen_aio/cli/parser.py": f"COMMANDS = {commands}\n",
        **{f"qwen_aio/prompts/{name}": text for name, text in prompts.items()},
    }
    scripts = "[console_scripts]\nqwen-aio = qwen_aio.doorway:start\n"
    metadata = ["License-Expression: Apache-2.0", *(f"Requires-Dist: {each}" for each in requires)]
    described = {"entry_points.txt": scripts}
    return make_wheel(folder, "qwen-aio", version, files=files, metadata=metadata, described=described, tag=tag)


def make_index(folder: Path, *wheels: Path) -> str:
    """The address of an index of packages that has `wheels`."""
    for wheel in wheels:
        page = folder / wheel.name.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as file:
            file.write(f'<a href="{wheel.as_uri()}">{wheel.name}</a><br>\n')
    return folder.as_uri()


def make_indexes(folder: Path) -> tuple[str, str]:
    """Addresses of an index as pip's own, whose torch has CUDA, and of one as PyTorch's."""
    licence = {"licenses/LICENSE": "All rights reserved, and granted."}
    tiny = make_wheel(
        folder / "wheels",
        "tinydep",
        "1.0",
        metadata=["License-Expression: MIT", "License-File: LICENSE"],
        described=licence,
    )
    bare = make_wheel(folder / "wheels", "bare", "3.1")
    torch = make_wheel(folder / "wheels", "torch", "2.13.0", metadata=["License: BSD-3-Clause", "Requires-Dist: bare"])
    cpu = make_wheel(folder / "cpu", "torch", "2.13.0+cpu", metadata=["License: BSD-3-Clause", "Requires-Dist: bare"])
    return make_index(folder / "simple", tiny, bare, torch), make_index(folder / "pytorch", cpu)


def pip_environment(index: str) -> dict[str, str]:
    """Settings of pip that know this index alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1"}


def unpack(tar: Path, into: Path, *, name: str) -> Path:
    """The folder in `tar`, as into/name."""
    with tarfile.open(tar) as archive:
        archive.extractall(into, filter="data")
    (into / f"qwen-aio-{__version__}").rename(into / name)
    return into / name


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
