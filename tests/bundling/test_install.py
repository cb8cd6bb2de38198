"""install.sh, run by /bin/sh: install, refuse, upgrade, roll back, and a kill at any point. The packages are small, everything else is real."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundling.packages import contents, make_indexes, make_own_wheel, pip_environment, unpack
from tests.campaign import CAMPAIGN
from tests.e2e.processes import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="install.sh is for the others")

NEW_TASKS = {
    "chat/task.toml": "second",
    "chat/prompt.j2": "second",
    "sentiment/task.toml": "second",
    "fresh/task.toml": "second",
}
ENGLISH = {"LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of two editions, and one for another Python."""
    place = tmp_path_factory.mktemp("bundles")
    index, pytorch = make_indexes(place / "indexes")
    wheels = {
        "first": make_own_wheel(
            place / "first", tasks={"dropped/task.toml": "first", **dict.fromkeys(tuple(NEW_TASKS)[:3], "first")}
        ),
        "second": make_own_wheel(
            place / "second", edition="second", tasks=NEW_TASKS, requires=("tinydep==1.0",), doctor=1
        ),
    }
    made = {}
    for name, wheel in {**wheels, "other": wheels["second"]}.items():
        made[name] = place / f"{name}.tar"
        flags = ["--wheel", str(wheel), "--torch-index", pytorch, "-o", str(made[name])]
        flags += ["--python", "3.14"] if name == "other" else []
        command = [sys.executable, "-m", "qwen_aio.cli.main", "bundle", *flags]
        environment = pip_environment(index) | {"QWEN_AIO_HOME": str(place / "home")}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return made


def run_installer(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Output and errors in one, as an operator sees them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("QWEN_AIO_", "PIP_"))}
    # pip is told of an index that must not be asked.
    environment = inherited | {"PYTHON": sys.executable, "PIP_INDEX_URL": "http://127.0.0.1:1/"} | ENGLISH | variables
    command = ["/bin/sh", str(folder / "install.sh"), *flags]
    return subprocess.run(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )


def installed(folder: Path, *flags: str) -> str:
    ended = run_installer(folder, *flags)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def started(folder: Path, *arguments: str, program: str = "app.py") -> dict[str, object]:
    """What `python app.py` says that it was started with; by a Python that knows nothing of the environment."""
    command = [sys.executable, str(folder / program), *arguments]
    # A PYTHONPATH would show another qwen_aio to it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ENGLISH
    ended = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def both(tars: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An installation, and one that was upgraded from it, in a place whose name needs quoting. Making environments takes long."""
    place = tmp_path_factory.mktemp("there with space")
    old = unpack(tars["first"], place, name="qwen-aio-1")
    assert "files are as they were bundled\n" in installed(old)
    new = unpack(tars["second"], place, name="qwen-aio-2")
    assert "files are as they were bundled\n" in installed(new, "--upgrade", str(old))
    assert started(place / "qwen-aio")["edition"] == "second"
    return old, new


def reset(folder: Path, tar: Path, *, mark: str, content: str) -> Path:
    """As unpacked, with the environment of before, and one mark of the installer."""
    for path in folder.iterdir():
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    fresh = unpack(tar, folder.parent, name="fresh")
    for path in fresh.iterdir():
        path.rename(folder / path.name)
    fresh.rmdir()
    (folder / mark).write_text(content)
    return folder


def lead(link: Path, folder: Path) -> None:
    if link.is_symlink():
        link.unlink()
    link.symlink_to(folder.name)


@pytest.fixture
def first(both: tuple[Path, Path], tars: dict[str, Path]) -> Path:
    """An installation that nobody has used yet."""
    old, _ = both
    lead(old.parent / "qwen-aio", old)
    return reset(old, tars["first"], mark=".installed", content="{}")


# ---- install ----


def test_the_commands_of_the_published_description_work_after_it(first):
    said = started(first, "--mode", "worker", "--port", "7861")
    assert said["command"] == "serve" and said["program"] == "app.py"
    assert said["arguments"] == ["--mode", "worker", "--port", "7861"]
    assert said["prefix"] == str(first / ".venv")
    assert started(first, program="balancer.py")["command"] == "balance"


def test_it_says_what_it_did_and_the_next_command_which_works(first):
    place = first.parent / "qwen-aio"
    place.unlink()
    said = installed(first)
    assert f"{place} leads to {first}\n" in said
    first_line, second_line = said.partition("next:\n")[2].splitlines()
    assert first_line == f"  cd {shlex.quote(str(place))}"
    command = second_line.split()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout)["arguments"] == command[2:]


def test_nothing_that_lies_in_the_folder_is_imported_in_place_of_a_package(first):
    (first / "json.py").write_text("raise SystemExit('taken from the folder')")
    assert started(first)["edition"] == "first"


def test_a_second_run_changes_nothing_and_says_so(first):
    before = contents(first)
    assert f"{first} is installed already" in installed(first)
    assert contents(first) == before


def test_an_environment_that_was_deleted_is_made_again_beside_tasks_of_ones_own(first):
    (first / "prompts/chat/task.toml").write_text("mine")
    (first / "notes.txt").write_text("mine")
    shutil.rmtree(first / ".venv")
    ended = subprocess.run([sys.executable, str(first / "app.py")], capture_output=True, text=True)
    assert ended.returncode == 1 and f"run sh {first}/install.sh" in ended.stderr
    wheel = first / "wheels/tinydep-1.0-py3-none-any.whl"
    right = wheel.read_bytes()
    wheel.write_bytes(b"")
    assert "wheels/tinydep-1.0-py3-none-any.whl is wrong" in run_installer(first).stdout
    wheel.write_bytes(right)
    installed(first)
    assert started(first)["edition"] == "first"
    assert (first / "prompts/chat/task.toml").read_text() == "mine"


def test_another_thing_of_the_links_name_stays(first):
    link = first.parent / "qwen-aio"
    link.unlink()
    link.mkdir()
    try:
        said = installed(first)
    finally:
        link.rmdir()
    assert f"{link} does not lead to {first}" in said and f"  cd {shlex.quote(str(first))}\n" in said


# ---- refusals ----


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda folder: (folder / "wheels/tinydep-1.0-py3-none-any.whl").write_bytes(b"x"),
            "tinydep-1.0-py3-none-any.whl is wrong",
        ),
        (lambda folder: (folder / "app.py").unlink(), "app.py is missing"),
        (lambda folder: (folder / "wheels/evil-1.whl").touch(), "wheels/evil-1.whl was added"),
        (lambda folder: (folder / "MANIFEST").unlink(), "MANIFEST cannot be read"),
    ],
    ids=["wrong", "missing", "added", "no manifest"],
)
def test_a_wrong_missing_or_added_file_is_refused_by_name(tars, tmp_path, change, named):
    folder = unpack(tars["first"], tmp_path, name="qwen-aio-1")
    change(folder)
    ended = run_installer(folder)
    assert ended.returncode == 1 and named in ended.stdout
    assert not (folder / ".venv").exists() and not (folder / ".installed").exists()
    assert not (tmp_path / "qwen-aio").exists()


@pytest.mark.parametrize(
    ("python3", "message"),
    [
        (
            '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\n',
            "python3 is Python 3.9.18, but Python 3.11 or newer is needed",
        ),
        (None, "python3 is missing, but Python 3.11 or newer is needed"),
    ],
    ids=["old", "none"],
)
def test_an_old_python_or_none_is_one_sentence_in_each_language(tars, tmp_path, python3, message):
    folder = unpack(tars["first"], tmp_path, name="qwen-aio-1")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dirname").symlink_to(shutil.which("dirname") or "")
    if python3:
        (programs / "python3").write_text(python3)
        (programs / "python3").chmod(0o755)
    ended = run_installer(folder, PYTHON="", PATH=str(programs))
    assert ended.returncode == 1
    english, chinese = ended.stdout.splitlines()
    assert message in english and f"sh {folder}/install.sh" in english
    assert "需要 Python 3.11 或更新的版本" in chinese


def test_a_bundle_for_another_python_says_which(tars, tmp_path):
    folder = unpack(tars["other"], tmp_path, name="qwen-aio-1")
    ended = run_installer(folder)
    assert ended.returncode == 1
    assert f"this bundle is for Python 3.14, and {sys.executable} is 3.{sys.version_info.minor}" in ended.stdout


def test_operators_in_china_read_chinese(tars, tmp_path):
    folder = unpack(tars["first"], tmp_path, name="qwen-aio-1")
    (folder / "app.py").unlink()
    assert "  缺少 app.py\n" in run_installer(folder, LC_ALL="zh_CN.UTF-8").stdout


def test_a_file_whose_name_is_no_text_is_named_all_the_same(tars, tmp_path):
    folder = unpack(tars["first"], tmp_path, name="qwen-aio-1")
    Path(os.fsdecode(b"%s/wheels/\xff" % os.fsencode(folder))).touch()
    assert "wheels/\\udcff was added\n" in run_installer(folder).stdout


# ---- upgrade and rollback ----


@pytest.fixture
def old(first: Path) -> Path:
    """An installation that has been in use."""
    (first / "prompts/chat/task.toml").write_text("mine")
    (first / "prompts/own").mkdir()
    (first / "prompts/own/task.toml").write_text("mine")
    (first / "qwen_aio.toml").write_text(f"tls_certificate = '{first}/tls.pem'\n")
    (first / "keys.json").write_text("{}")
    (first / "keys.json").chmod(0o600)
    (first / "tls.pem").write_text("mine")
    (first / "state/deep").mkdir(parents=True)
    (first / "state/deep/record").write_text("mine")
    (first / "models/mine").mkdir()
    (first / "models/mine/model.safetensors").write_text("weights")
    for name in ("status/status.json", "status/status.json.lock", "status/admin.json"):
        (first / name).write_text("{}")
    return first


@pytest.fixture
def new(old: Path, both: tuple[Path, Path], tars: dict[str, Path]) -> Path:
    """A newer version: an upgrade from `old` has made its environment, and nothing else."""
    return reset(both[1], tars["second"], mark=".carrying", content=str(old))


@pytest.fixture
def link(old: Path) -> Path:
    """The name by which operators start the installation."""
    return old.parent / "qwen-aio"


def test_an_upgrade_keeps_what_is_the_operators_and_leads_to_the_new_version(old, new, link):
    before = contents(old)
    said = installed(new, "--upgrade", str(link))
    assert started(link)["edition"] == "second"
    there = contents(new)
    for name in (
        "qwen_aio.toml",
        "keys.json",
        "tls.pem",
        "state/deep/record",
        "status/admin.json",
        "models/mine/model.safetensors",
    ):
        assert there[name] == before[name]
    assert (new / "keys.json").stat().st_mode & 0o777 == 0o600
    assert not (new / "status/status.json").exists() and not (new / "status/status.json.lock").exists()
    tasks = {name.removeprefix("prompts/"): text for name, text in there.items() if name.startswith("prompts/")}
    assert tasks == {
        "chat/task.toml": b"mine",  # as one task: its prompt belongs to it
        "chat/prompt.j2": b"first",
        "own/task.toml": b"mine",
        "sentiment/task.toml": b"second",
        "fresh/task.toml": b"second",
    }
    assert "kept as in the old version, since it is yours: prompts/chat\n" in said
    assert "kept as in the old version, since it is yours: prompts/own\n" in said
    assert "new in this version: prompts/sentiment\n" in said
    assert "no longer part of this version: prompts/dropped\n" in said
    assert f"{new / 'qwen_aio.toml'} names files in {old}" in said
    assert f"stop what runs from {old}" in said
    assert "doctor: the clock is wrong\n" in said  # and ends with 1, which is no failure
    assert contents(old) == before
    assert "is installed already" in installed(new, "--upgrade", str(old))


def test_a_folder_that_lies_elsewhere_stays_there(old, new, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(old / "status")
    (old / "status").symlink_to(tmp_path / "elsewhere")
    installed(new, "--upgrade", str(old))
    assert (new / "status").readlink() == tmp_path / "elsewhere"


def test_a_task_that_the_operator_deleted_stays_deleted(old, new):
    shutil.rmtree(old / "prompts/sentiment")
    assert "left out, as in the old version: prompts/sentiment\n" in installed(new, "--upgrade", str(old))
    assert not (new / "prompts/sentiment").exists()


def test_a_rollback_leads_back_and_keys_that_were_revoked_stay_so(old, new, link):
    before = contents(old)
    installed(new, "--upgrade", str(old))
    (new / "keys.json").write_text('{"revoked": []}')
    (new / "prompts/own/task.toml").write_text("changed since")
    said = installed(new, "--rollback")
    assert started(link)["edition"] == "first"
    assert f"{old} is the installation again" in said and f"keys as they are now, also in {old}" in said
    assert contents(old) == before | {"keys.json": b'{"revoked": []}'}
    assert "changed since" in (new / "prompts/own/task.toml").read_text()
    # And forward again, with what the old one has by now, though somebody has made room meanwhile.
    shutil.rmtree(new / ".venv")
    (old / "qwen_aio.toml").write_text("port = 7000\n")
    installed(new, "--upgrade", str(old))
    assert started(link)["edition"] == "second"
    assert (new / "qwen_aio.toml").read_text() == "port = 7000\n"


def test_what_cannot_be_upgraded_or_rolled_back_is_one_sentence(old, new, link, tars, tmp_path):
    bare = unpack(tars["first"], tmp_path, name="bare")
    (tmp_path / "empty").mkdir()
    (new / ".carrying").unlink()
    for folder, flags, message in (
        (new, ("--upgrade", str(tmp_path / "empty")), "is no folder with an installation of a bundle"),
        (new, ("--upgrade", str(bare)), "is no folder with an installation of a bundle"),
        (old, ("--rollback",), "was not installed by --upgrade"),
        (new, ("--rollback",), "was not installed by --upgrade"),
        (bare, ("--upgrade", str(bare)), "is this folder itself"),
        (old, ("--upgrade", str(new)), "is in use already"),
    ):
        ended = run_installer(folder, *flags)
        assert ended.returncode == 1 and message in ended.stdout, ended.stdout
        assert ended.stdout.count("\n") == 1
    assert started(link)["edition"] == "first"


# ---- killed ----

# Runs the installer and kills it before its n-th change of a file.
KILLS = """\
import os, runpy, signal, sys
left = int(sys.argv.pop(1))
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}
def watch(event, arguments):
    global left
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or is_write or event == "subprocess.Popen":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.argv = sys.argv[1:]
sys.addaudithook(watch)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def killed_after(num_changes: int, folder: Path, *flags: str) -> int:
    """The exit status of an installer that may change so many files."""
    command = [sys.executable, "-c", KILLS, str(num_changes), str(folder / "installer.py"), *flags]
    return subprocess.run(command, env=os.environ | ENGLISH, capture_output=True).returncode


def numbers_to_try() -> Iterator[int]:
    """Every point in the campaign, else each eleventh."""
    number = 0
    while True:
        yield number
        number += 1 if CAMPAIGN else 11


def test_an_upgrade_that_is_killed_before_its_environment_is_whole_changes_nothing(old, link, tars):
    fresh = unpack(tars["second"], old.parent, name="qwen-aio-3")
    assert killed_after(2, fresh, "--upgrade", str(old)) == -signal.SIGKILL
    assert started(link)["edition"] == "first"
    ended = subprocess.run([sys.executable, str(fresh / "app.py")], capture_output=True, text=True)
    assert ended.returncode == 1 and f"run sh {fresh}/install.sh" in ended.stderr
    shutil.rmtree(fresh)


def test_an_upgrade_that_is_killed_anywhere_leaves_a_working_installation_and_goes_on(old, new, link, tars):
    installed(new, "--upgrade", str(old))
    right = contents_beside_environment(new)
    seen = set()
    for number in numbers_to_try():
        reset(new, tars["second"], mark=".carrying", content=str(old))
        lead(link, old)
        status = killed_after(number, new, "--upgrade", str(old))
        seen.add(started(link)["edition"])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        installed(new, "--upgrade", str(old))
        assert started(link)["edition"] == "second"
        assert contents_beside_environment(new) == right
    assert seen == {"first", "second"} and number > 20


def contents_beside_environment(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if not name.startswith(".venv")}


def test_a_rollback_that_is_killed_anywhere_leaves_a_working_installation_and_goes_on(old, new, link):
    installed(new, "--upgrade", str(old))
    number, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        (new / "keys.json").write_text(str(number))
        status = killed_after(number, new, "--rollback")
        if started(link)["edition"] == "first":
            assert (old / "keys.json").read_text() == str(number)
        if (new / ".installed").exists():
            installed(new, "--rollback")
        assert started(link)["edition"] == "first"
        installed(new, "--upgrade", str(old))
        number += 1
    assert status == 0 and number > 5
