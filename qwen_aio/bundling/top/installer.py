"""Verifies, installs, upgrades and rolls back an unpacked bundle. install.sh and install.ps1 run it.

Needs Python 3.11 and its standard library alone. A version is a folder. An upgrade makes the new folder
whole, reads the old one only, and ends with one rename, of the link `qwen-aio` beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MANIFEST = "MANIFEST"
ABOUT = "bundle.json"
ENVIRONMENT = ".venv"
INSTALLED = ".installed"  # the installation is whole; it says which folder it took over, and which link leads to it
CARRYING = ".carrying"  # files and environment are right; what it takes over from the folder named in it is on the way
MARKS = (MANIFEST, INSTALLED, CARRYING)
LINK = "qwen-aio"
SETTINGS = ("qwen_aio.toml", "keys.json", "service.key")  # may lie there before the installation
KEYS = ("keys.json", "service.key")
FOLDERS_OF_FOLDERS = ("prompts", "models")
RECORD_OF_A_MODEL = "manifest.json"
TEMPORARY = re.compile(r".*\.(lock|tmp)|status/status\.json|(.*/)?__pycache__/.*")
PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"  # of a path: no way out of the folder, nothing hidden
LANGUAGE, LOCALE = "QWEN_AIO_LANG", ("LC_ALL", "LC_MESSAGES", "LANG")
LINE = re.compile(rf"([0-9a-f]{{64}})  ({PART}(?:/{PART})*)")

MESSAGES = {  # name -> English, Chinese
    "about": ("Verifies, installs, upgrades and rolls back this bundle.", "校验、安装、升级、回退这个安装包。"),
    "upgrade": ("take settings, keys, prompts, state from this folder", "沿用这个文件夹里的设置、密钥、任务和状态"),
    "rollback": ("go back to the folder that the upgrade came from", "回退到升级之前的文件夹"),
    "language": (
        "language of messages (QWEN_AIO_LANG, else that of the locale)",
        "提示的语言（默认取 QWEN_AIO_LANG，其次取区域设置）",
    ),
    "no_manifest": ("{path} cannot be read: unpack the bundle again", "无法读取 {path}：请重新解压安装包"),
    "bad_manifest": (
        "line {number} of {path} is damaged, or names a file outside of this folder: {line!r}; copy the bundle again",
        "{path} 第 {number} 行已损坏，或指向本文件夹之外：{line!r}；请重新复制安装包",
    ),
    "wrong": (
        "{count} files are not as they were bundled, and nothing is installed; copy and unpack the bundle again:",
        "有 {count} 个文件与打包时不同，没有安装任何东西；请重新复制并解压安装包：",
    ),
    "file_missing": ("{path} is missing", "缺少 {path}"),
    "file_added": ("{path} was added", "多出 {path}"),
    "file_changed": ("{path} is wrong: its SHA-256 differs", "{path} 不对：SHA-256 不一致"),
    "file_link": ("{path} is no plain file", "{path} 不是普通文件"),
    "bad_record": ("{path} is damaged", "{path} 已损坏"),
    "python": (
        "this bundle is for Python {wanted}, and {executable} is {found}: run PYTHON=python{wanted} sh install.sh, or"
        " make a bundle for Python {found}",
        "本安装包用于 Python {wanted}，而 {executable} 是 {found}：请执行 PYTHON=python{wanted} sh install.sh，"
        "或为 Python {found} 重新打包",
    ),
    "platform": (
        "this bundle is for {wanted}, and this machine is {found}: make one with qwen-aio bundle for this platform",
        "本安装包用于 {wanted}，而本机是 {found}：请用 qwen-aio bundle 为本平台打包",
    ),
    "no_venv": (
        "{executable} cannot make an environment; what it printed says why (on Debian and Ubuntu: apt install"
        " python{wanted}-venv)",
        "{executable} 无法创建虚拟环境，原因见上面的输出（Debian 和 Ubuntu：apt install python{wanted}-venv）",
    ),
    "no_install": (
        "pip does not install the packages; what it printed says why",
        "pip 安装失败，原因见上面的输出",
    ),
    "no_start": ("what was installed in {folder} does not start", "{folder} 里安装的程序无法启动"),
    "verified": ("{count} files are as they were bundled", "{count} 个文件与打包时一致"),
    "installing": ("installing into {path}", "正在安装到 {path}"),
    "installed": ("{folder} is installed already", "{folder} 已经安装过"),
    "begun": (
        "an upgrade from {old} was begun here: run install.sh --upgrade {old} to finish it",
        "这里有一次从 {old} 开始的升级没有完成：请执行 install.sh --upgrade {old}",
    ),
    "no_old": (
        "{old} is no folder with an installation of a bundle, so there is nothing to take over",
        "{old} 不是用安装包安装的文件夹，没有可以沿用的内容",
    ),
    "own": (
        "{old} is this folder itself: run the install.sh of the newer one",
        "{old} 就是本文件夹：请运行新版本的 install.sh",
    ),
    "other": (
        "{folder} is in use already, so nothing is taken over from {old}; unpack the bundle again in another place",
        "{folder} 已在使用，不再沿用 {old} 的内容；请在别处重新解压安装包",
    ),
    "carried": ("taken over from {old}: {count} files", "从 {old} 沿用了 {count} 个文件"),
    "kept": (
        "kept as in the old version, since it is yours: {name}",
        "保留旧版本里的内容，因为你改过或自己添加了它：{name}",
    ),
    "updated": ("new in this version: {name}", "更新为新版本：{name}"),
    "gone": ("no longer part of this version: {name}", "新版本不再包含：{name}"),
    "left_out": ("left out, as in the old version: {name}", "和旧版本一样不包含：{name}"),
    "old_path": (
        "{file} names files in {old}; they are needed there, or change the lines",
        "{file} 里写着 {old} 中的路径：请保留那些文件，或修改这些行",
    ),
    "link": ("{link} leads to {folder}", "{link} 指向 {folder}"),
    "no_link": (
        "{link} does not lead to {folder}: it cannot be made, or leads elsewhere; use the folder itself",
        "{link} 没有指向 {folder}：无法创建，或指向别处；请直接使用该文件夹",
    ),
    "restart": (
        "stop what runs from {old} and start from the new one (a service: qwen-aio service install --force)",
        "请停止从 {old} 运行的程序，再从新文件夹启动（若是服务：qwen-aio service install --force）",
    ),
    "no_rollback": (
        "{folder} was not installed by --upgrade, so there is no version to go back to",
        "{folder} 不是升级而来，无法回退",
    ),
    "keys_back": ("keys as they are now, also in {old}", "当前的密钥也已写回 {old}"),
    "rolled_back": (
        "{old} is the installation again; tasks, settings and state that were changed since are kept in {folder}",
        "{old} 重新成为当前安装；此后改过的任务、设置和状态仍保存在 {folder}",
    ),
    "doctor_failed": ("qwen-aio doctor ended with status {status}", "qwen-aio doctor 以状态 {status} 结束"),
    "next": ("next:", "接下来："),
    "disk": ("{path} cannot be read or written: {reason}", "无法读写 {path}：{reason}"),
}


class Refused(Exception):
    """A sentence for the operator; nothing that runs was touched."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="install.sh", description=text("about"))
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--upgrade", type=Path, metavar="OLD", help=text("upgrade"))
    either.add_argument("--rollback", action="store_true", help=text("rollback"))
    parser.add_argument("--lang", choices=("zh", "en"), help=text("language"))
    parsed = parser.parse_args(arguments)
    if parsed.lang:
        os.environ[LANGUAGE] = parsed.lang  # also for the doctor
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # no console ends it by its encoding
    folder = Path(__file__).resolve().parent
    try:
        if parsed.rollback:
            return roll_back(folder)
        return upgrade(folder, parsed.upgrade) if parsed.upgrade else install(folder)
    except Refused as exc:
        print(f"install.sh: {exc}", file=sys.stderr)
    except OSError as exc:
        print(f"install.sh: {text('disk', path=exc.filename, reason=exc.strerror or exc)}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def install(folder: Path) -> int:
    """Make this folder an installation, unless it is one; the exit status. Raises Refused, OSError."""
    is_used = (folder / INSTALLED).exists()
    if not is_used and (folder / CARRYING).exists():
        raise Refused(text("begun", old=read(folder / CARRYING)))
    if is_used and program_of(folder).exists():
        tell("installed", folder=folder)
    else:
        prepare(folder, is_used=is_used)
    if not is_used:
        write(folder / INSTALLED, "{}\n")
    link = folder.parent / LINK
    return finish(folder, link, leads=lead(link, folder, instead_of=folder))


def upgrade(folder: Path, given: Path) -> int:
    """The same with what is the operator's in the folder `given`; the exit status. Raises Refused, OSError."""
    link = given.absolute() if given.is_symlink() else given.resolve().parent / LINK
    old = given.resolve()
    if (folder / INSTALLED).exists():  # the link may be all that is missing
        if installation(folder).get("previous") != str(old):
            raise Refused(text("other", folder=folder, old=old))
        tell("installed", folder=folder)
    else:
        take_over(folder, old, link)
    (folder / CARRYING).unlink(missing_ok=True)
    leads = lead(link, folder, instead_of=old)
    tell("restart", old=old)
    return finish(folder, link, leads=leads)


def take_over(folder: Path, old: Path, link: Path) -> None:
    """From an unpacked bundle to an installation with the operator's things. Raises Refused, OSError."""
    if old == folder:
        raise Refused(text("own", old=old))
    if not (old / INSTALLED).is_file():
        raise Refused(text("no_old", old=old))
    is_begun = (folder / CARRYING).exists()
    if is_begun and read(folder / CARRYING) != str(old):
        raise Refused(text("begun", old=read(folder / CARRYING)))
    if not is_begun or not program_of(folder).exists():
        prepare(folder, is_used=is_begun)
    write(folder / CARRYING, str(old))
    carry_over(folder, old)
    write(folder / INSTALLED, json.dumps({"previous": str(old), "link": str(link)}) + "\n")


def roll_back(folder: Path) -> int:
    """Lead the link to the version before; the exit status. Raises Refused, OSError."""
    known = installation(folder)
    if "previous" not in known:
        raise Refused(text("no_rollback", folder=folder))
    old, link = Path(known["previous"]), Path(known["link"])
    if not (old / INSTALLED).is_file():
        raise Refused(text("no_old", old=old))
    check_starts(old)
    for name in KEYS:  # a key that was revoked since stays revoked
        if (folder / name).is_file() and (not (old / name).is_file() or not is_same(folder / name, old / name)):
            copy(folder / name, old / name)
            tell("keys_back", old=old)
    leads = lead(link, old, instead_of=folder)
    write(folder / CARRYING, str(old))  # a second upgrade takes all over anew
    (folder / INSTALLED).unlink()
    tell("rolled_back", old=old, folder=folder)
    tell("restart", old=folder)
    return finish(old, link, leads=leads)


def finish(folder: Path, link: Path, *, leads: bool) -> int:
    """What is found on this machine, and the next command; the exit status."""
    tell("link" if leads else "no_link", link=link, folder=folder)
    status = call_doctor(folder)
    place = str(link if leads else folder)
    tell("next")
    print(f"  cd {shlex.quote(place) if os.name != 'nt' else place}")
    model = json.loads(read(folder / ABOUT)).get("model")
    flag = f" --model {model}" if model else ""
    print(f"  {python_of(Path(ENVIRONMENT))} app.py --mode single --port 7860{flag}")
    return status


# ---- every file as it was bundled ----


def prepare(folder: Path, *, is_used: bool = False) -> None:
    """Verify all files, and make the environment. Raises Refused, OSError.

    In a folder that is used, tasks and whatever was added are the operator's.
    """
    listed = listed_files(folder)
    if is_used:
        listed = {path: known for path, known in listed.items() if not path.startswith("prompts/")}
    if wrong := wrong_files(folder, listed, may_have_more=is_used):
        raise Refused("\n".join((text("wrong", count=len(wrong)), *(f"  {line}" for line in wrong))))
    tell("verified", count=len(listed))
    make_environment(folder, json.loads(read(folder / ABOUT)))
    check_starts(folder)


def listed_files(folder: Path) -> dict[str, str]:
    """Path of every file that the bundle brought -> its SHA-256. Raises Refused."""
    path = folder / MANIFEST
    try:
        lines = read(path).removesuffix("\n").split("\n")
    except (OSError, ValueError) as exc:
        raise Refused(text("no_manifest", path=path)) from exc
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise Refused(text("bad_manifest", path=path, number=number, line=line[:200]))
        listed[found[2]] = found[1]
    return listed


def wrong_files(folder: Path, listed: Mapping[str, str], *, may_have_more: bool) -> list[str]:
    """A line for each file that is wrong, missing or added. Raises OSError."""
    there = set(files_in(folder))
    added = set() if may_have_more else there - listed.keys() - {*MARKS, *SETTINGS}
    models = {path.split("/")[1] for path in added if re.fullmatch("models/[^/]+/manifest[.]json", path)}
    lines = [text("file_missing", path=path) for path in sorted(listed.keys() - there)]
    for path in sorted(listed.keys() & there):
        lines += wrong_file(folder, path, sha256=listed[path])
    for path in sorted(added):
        if not path.startswith(tuple(f"models/{name}/" for name in models)):
            lines.append(text("file_added", path=path))
    for name in sorted(models):  # a bundle of models alone, unpacked here
        lines += wrong_in_model(folder, name)
    return lines


def wrong_in_model(folder: Path, name: str) -> list[str]:
    """The same for a model that has its own record, as `qwen-aio models verify` reads it. Raises OSError."""
    record = f"models/{name}/{RECORD_OF_A_MODEL}"
    try:
        files = {str(file): str(known["sha256"]) for file, known in json.loads(read(folder / record))["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return [text("bad_record", path=record)]
    there = {path.removeprefix(f"models/{name}/") for path in files_in(folder) if path.startswith(f"models/{name}/")}
    lines = [text("file_missing", path=f"models/{name}/{file}") for file in sorted(files.keys() - there)]
    lines += [
        text("file_added", path=f"models/{name}/{file}") for file in sorted(there - files.keys() - {RECORD_OF_A_MODEL})
    ]
    for file in sorted(files.keys() & there):
        lines += wrong_file(folder, f"models/{name}/{file}", sha256=files[file])
    return lines


def wrong_file(folder: Path, path: str, *, sha256: str) -> list[str]:
    """A line if it is no plain file or has other bytes. Raises OSError."""
    if not stat.S_ISREG((folder / path).lstat().st_mode):
        return [text("file_link", path=path)]
    return [] if sha256_of(folder / path) == sha256 else [text("file_changed", path=path)]


def files_in(folder: Path) -> Iterator[str]:
    """Path of everything below that is no folder, links to folders too, without the environment. Raises OSError."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        inside = Path(place).relative_to(folder)
        if inside == Path() and ENVIRONMENT in folders:
            folders.remove(ENVIRONMENT)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            yield (inside / name).as_posix()


def _raise(error: OSError) -> None:
    raise error


def sha256_of(path: Path) -> str:
    """Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- the environment ----


def make_environment(folder: Path, about: Mapping[str, str]) -> None:
    """`.venv`, from the wheels here alone. Raises Refused, OSError."""
    found = f"{sys.version_info.major}.{sys.version_info.minor}"
    if found != about["python"]:
        raise Refused(text("python", wanted=about["python"], found=found, executable=sys.executable))
    here, wanted = (sys.platform, platform.machine()), (about["system"], about["machine"])
    if here != wanted:
        raise Refused(text("platform", wanted=" ".join(wanted), found=" ".join(here)))
    venv = folder / ENVIRONMENT
    tell("installing", path=venv)
    if venv.exists():  # of an installation that was broken off
        shutil.rmtree(venv)
    if run_program(sys.executable, "-I", "-m", "venv", venv):
        raise Refused(text("no_venv", executable=sys.executable, wanted=found))
    flags = ("--no-index", "--find-links", folder / "wheels", "--require-hashes", "--only-binary", ":all:")
    pip = (python_of(venv), "-I", "-m", "pip", "install", "--quiet", "--no-cache-dir")
    if run_program(*pip, *flags, "--requirement", folder / "requirements.txt"):
        raise Refused(text("no_install"))


def check_starts(folder: Path) -> None:
    """Raises Refused unless the program there starts."""
    if not program_of(folder).exists() or run_program(program_of(folder), "--version", output=subprocess.DEVNULL):
        raise Refused(text("no_start", folder=folder))


def call_doctor(folder: Path) -> int:
    """Let `qwen-aio doctor` print what it finds, which is no failure; the exit status. Versions before it have none."""
    has_doctor = "import sys; from qwen_aio.cli.parser import COMMANDS; sys.exit('doctor' not in COMMANDS)"
    if run_program(python_of(folder / ENVIRONMENT), "-P", "-c", has_doctor):
        return 0
    status = run_program(program_of(folder), "doctor")
    if status in (0, 1):
        return 0
    print(f"install.sh: {text('doctor_failed', status=status)}", file=sys.stderr)
    return 1


def run_program(*command: str | Path, output: int | None = None) -> int:
    """The exit status of a program that knows no settings of pip, and no packages but its own. Raises OSError."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment = kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    return subprocess.run([*map(str, command)], env=environment, stdout=output).returncode


def python_of(venv: Path) -> Path:
    """Its interpreter."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def program_of(folder: Path) -> Path:
    """The command `qwen-aio` of an installation."""
    return folder / ENVIRONMENT / ("Scripts/qwen-aio.exe" if os.name == "nt" else "bin/qwen-aio")


# ---- what is the operator's ----


def carry_over(folder: Path, old: Path) -> None:
    """Copy from `old` what no bundle brought, or was changed there. May run again. Raises Refused, OSError."""
    was_listed, is_listed = listed_files(old), listed_files(folder)
    for kind in FOLDERS_OF_FOLDERS:
        for name in sorted({*names_in(old / kind), *names_below(was_listed, kind)}):
            carry_folder(f"{kind}/{name}", folder, old, was_listed, is_listed)
    count = 0
    for path in sorted(files_in(old)):
        is_ours = path in was_listed or path in is_listed or path in MARKS or path.split("/")[0] in FOLDERS_OF_FOLDERS
        if is_ours or TEMPORARY.fullmatch(path):
            continue
        if (old / path).is_symlink():  # of a folder, perhaps, which is one here
            replace_folder(folder / path, old / path)
        count += copy(old / path, folder / path)
    tell("carried", old=old, count=count)
    settings = folder / SETTINGS[0]
    if settings.is_file() and str(old) in settings.read_text(encoding="utf-8", errors="replace"):
        tell("old_path", file=settings, old=old)


def carry_folder(
    name: str, folder: Path, old: Path, was_listed: Mapping[str, str], is_listed: Mapping[str, str]
) -> None:
    """A task or a model: the new version's, unless the operator made or changed it. Raises OSError."""
    is_new = any(path.startswith(f"{name}/") for path in is_listed)
    is_model = name.startswith("models/")
    if is_model and not is_new:
        replace_folder(folder / name, old / name)
        return
    brought = {path: known for path, known in was_listed.items() if path == name or path.startswith(f"{name}/")}
    there = hashes_of(old, name)
    if there == brought:
        is_same_again = all(is_listed.get(path) == known for path, known in brought.items())
        if not is_same_again:
            tell("updated" if is_new else "gone", name=name)
    elif there:
        replace_folder(folder / name, old / name)
        tell("kept", name=name)
    elif not is_model:
        replace_folder(folder / name, old / name)
        tell("left_out", name=name)


def hashes_of(folder: Path, name: str) -> dict[str, str]:
    """Of the files in folder/name, or of the file itself. Raises OSError."""
    place = folder / name
    if place.is_file():
        return {name: sha256_of(place)}
    inside = files_in(place) if place.is_dir() else ()
    return {f"{name}/{path}": sha256_of(place / path) for path in inside if (place / path).is_file()}


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []


def names_below(listed: Mapping[str, str], kind: str) -> set[str]:
    return {path.split("/")[1] for path in listed if path.startswith(f"{kind}/")}


def replace_folder(target: Path, source: Path) -> None:
    """Make `target` what `source` is, which may be nothing. Raises OSError."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    if source.is_symlink() or source.is_file():
        copy(source, target)
    elif source.is_dir():
        for path in files_in(source):
            copy(source / path, target / path)


def copy(source: Path, target: Path) -> bool:
    """Whether there was a file, or a link, to copy: with its mode and owner, whole or not at all. Raises OSError."""
    kind = source.lstat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):
        return False  # sockets and pipes of something that runs
    make_folder(target.parent, source.parent)
    partial = target.with_name(f"{target.name}.tmp")
    partial.unlink(missing_ok=True)
    if stat.S_ISLNK(kind):
        partial.symlink_to(source.parent / source.readlink())
    elif not is_linked(source, partial):
        with (
            source.open("rb") as reading,
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as writing,
        ):
            shutil.copyfileobj(reading, writing)
        match_owner(partial, source)
        shutil.copystat(source, partial)
    partial.replace(target)
    return True


def is_linked(source: Path, target: Path) -> bool:
    """Whether weights, which nobody writes to, could be shared instead of copied."""
    if source.suffix != ".safetensors":
        return False
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or one without links
        return False
    return True


def make_folder(target: Path, source: Path) -> None:
    """A folder with the mode and owner of `source`, and those around it. Raises OSError."""
    if target.exists():
        return
    make_folder(target.parent, source.parent)
    target.mkdir()
    match_owner(target, source)
    shutil.copymode(source, target)


def match_owner(target: Path, source: Path) -> None:
    """For root, who may upgrade another user's installation. Raises OSError."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        known = source.stat()
        os.chown(target, known.st_uid, known.st_gid)


def is_same(one: Path, other: Path) -> bool:
    """Raises OSError."""
    return one.read_bytes() == other.read_bytes()


# ---- the switch ----


def lead(link: Path, folder: Path, *, instead_of: Path) -> bool:
    """Whether `link` now leads to `folder`; it is changed only if it led to `instead_of`, or was not there."""
    if link.is_symlink() and link.resolve() == folder:
        return True
    if os.path.lexists(link) and not (link.is_symlink() and link.resolve() == instead_of):
        return False
    partial = link.with_name(f".{link.name}.new")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(folder.name if folder.parent == link.parent.resolve() else folder, target_is_directory=True)
        partial.replace(link)
    except (OSError, NotImplementedError):  # a disk or a Windows without links
        return False
    return True


def installation(folder: Path) -> dict[str, str]:
    """What INSTALLED says. Raises Refused where nothing is installed."""
    try:
        known = json.loads(read(folder / INSTALLED))
    except (OSError, ValueError) as exc:
        raise Refused(text("no_rollback", folder=folder)) from exc
    return {str(name): str(value) for name, value in known.items()} if isinstance(known, dict) else {}


# ---- words and small files ----


def read(path: Path) -> str:
    """Raises OSError, ValueError."""
    return path.read_text(encoding="utf-8")


def write(path: Path, content: str) -> None:
    """Whole or not at all. Raises OSError."""
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)


def text(name: str, /, **values: object) -> str:
    """A message in the operator's language, by the same rule as what is installed (startup/language.py)."""
    stated = next((value for each in (LANGUAGE, *LOCALE) if (value := os.environ.get(each))), "")
    return MESSAGES[name][stated.lower().startswith("zh")].format(**values)


def tell(name: str, /, **values: object) -> None:
    print(text(name, **values), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
