"""`qwen-aio bundle`: what is in the tar, what is refused, and that it is there whole or not at all. pip is real, the packages are small."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from qwen_aio import __version__
from qwen_aio.bundling.own_wheel import repacked
from qwen_aio.bundling.wheel_file import WheelFile
from qwen_aio.cli.main import main
from qwen_aio.errors import BundleFailed
from qwen_aio.models.find import BUNDLED
from tests.bundling.packages import (
    contents,
    make_index,
    make_indexes,
    make_own_wheel,
    make_wheel,
    pip_environment,
    unpack,
)

TOP = f"qwen-aio-{__version__}"


@pytest.fixture(autouse=True)
def pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an index as PyTorch's; pip and home are our own."""
    index, pytorch = make_indexes(tmp_path / "indexes")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in pip_environment(index).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "home"))
    return pytorch


def bundled(tmp_path: Path, *flags: str, torch_index: str, status: int = 0, name: str = "out.tar") -> Path:
    """The tar that `qwen-aio bundle` makes."""
    path = tmp_path / name
    assert main(["bundle", "--torch-index", torch_index, "-o", str(path), *flags]) == status
    return path


def own(tmp_path: Path, **more: object) -> tuple[str, str]:
    return "--wheel", str(make_own_wheel(tmp_path / "own", **more))


def test_a_bundle_is_one_folder_with_everything_and_the_hash_of_each_file(tmp_path, pytorch, capsys):
    tar = bundled(tmp_path, *own(tmp_path), torch_index=pytorch)
    folder = unpack(tar, tmp_path, name="there")
    there = contents(folder)
    assert {name.split("/")[0] for name in there} | {"models"} == {path.name for path in folder.iterdir()}
    assert {"app.py", "balancer.py", "install.sh", "install.ps1", "installer.py", "MANIFEST"} <= there.keys()
    assert there["prompts/sentiment/task.toml"] == b"first" and (folder / "status/README.md").is_file()
    assert {name for name in there if name.startswith("wheels/")} == {
        f"wheels/{name}.whl"
        for name in (
            "bare-3.1-py3-none-any",
            f"qwen_aio-{__version__}-py3-none-any",
            "tinydep-1.0-py3-none-any",
            "torch-2.13.0+cpu-py3-none-any",
        )
    }
    listed = dict(reversed(line.split("  ")) for line in there.pop("MANIFEST").decode().splitlines())
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in there.items()}
    wheel = hashlib.sha256(there["wheels/tinydep-1.0-py3-none-any.whl"]).hexdigest()
    assert f"tinydep==1.0 --hash=sha256:{wheel}\n" in there["requirements.txt"].decode()
    told = capsys.readouterr()
    assert f"SHA-256 {hashlib.sha256(tar.read_bytes()).hexdigest()}" in told.out
    assert f"tar -xf out.tar && sh {TOP}/install.sh" in told.out
    assert "no native library" in told.err
    assert not (tmp_path / "home/state/bundle").exists()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_manifest_is_one_that_sha256sum_reads(tmp_path, pytorch):
    folder = unpack(bundled(tmp_path, *own(tmp_path), torch_index=pytorch), tmp_path, name="there")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "MANIFEST"], cwd=folder, check=True)


def test_two_bundles_of_the_same_are_the_same_bytes(tmp_path, pytorch):
    wheel = own(tmp_path)
    one = bundled(tmp_path, *wheel, torch_index=pytorch).read_bytes()
    os.utime(wheel[1], (1, 1))
    assert bundled(tmp_path, *wheel, torch_index=pytorch, name="other.tar").read_bytes() == one
    with tarfile.open(tmp_path / "out.tar") as archive:
        members = archive.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(946684800, 0, 0, "")}
    assert {member.name for member in members if member.mode & 0o111 and member.isfile()} == {f"{TOP}/install.sh"}


def test_where_pytorchs_index_is_out_of_reach_a_larger_torch_is_warned_of(tmp_path, capsys):
    nowhere = (tmp_path / "nowhere").as_uri()
    folder = unpack(bundled(tmp_path, *own(tmp_path), torch_index=nowhere), tmp_path, name="there")
    assert (folder / "wheels/torch-2.13.0-py3-none-any.whl").is_file()
    assert f"{nowhere} cannot be reached" in capsys.readouterr().err


def test_a_package_that_pip_does_not_get_is_one_sentence(tmp_path, pytorch, capsys):
    path = bundled(tmp_path, *own(tmp_path, requires=("absent==9",)), torch_index=pytorch, status=1)
    assert "pip does not get all packages for Python" in capsys.readouterr().err
    assert not path.exists()


# ---- licences ----


def test_licences_are_collected_and_a_package_without_any_is_named(tmp_path, pytorch, capsys):
    folder = unpack(bundled(tmp_path, *own(tmp_path), torch_index=pytorch), tmp_path, name="there") / "licenses"
    assert "All rights reserved, and granted." in (folder / "tinydep-1.0.txt").read_text()
    assert "licence: BSD-3-Clause" in (folder / "torch-2.13.0+cpu.txt").read_text()
    summary = (folder / "SUMMARY.txt").read_text().splitlines()
    assert summary[0] == "NO LICENCE INFORMATION came with bare-3.1"
    assert "tinydep-1.0: MIT" in summary and f"{TOP}: Apache-2.0" in summary
    assert "## Licence" in (folder / "model-bundled.txt").read_text()
    assert "no licence information came with bare-3.1;" in capsys.readouterr().out


# ---- models ----


def model(folder: Path) -> Path:
    """A copy of the bundled one."""
    shutil.copytree(BUNDLED, folder, ignore=shutil.ignore_patterns("golden"))
    return folder


def test_chosen_models_go_along_with_their_hashes_and_the_installer_knows_which_to_name(tmp_path, pytorch):
    model(tmp_path / "home/models/mine")
    (tmp_path / "home/models/mine/pytorch_model.bin").write_bytes(b"a pickle")
    folder = unpack(bundled(tmp_path, *own(tmp_path), "--model", "mine", torch_index=pytorch), tmp_path, name="there")
    assert (folder / "models/mine/model.safetensors").read_bytes() == (BUNDLED / "model.safetensors").read_bytes()
    record = json.loads((folder / "models/mine/manifest.json").read_text())
    assert record["source"] == "mine" and "pytorch_model.bin" not in record["files"]
    assert json.loads((folder / "bundle.json").read_text())["model"] == "models/mine"
    assert (folder / "licenses/model-mine.txt").is_file()


def test_a_model_alone_is_unpacked_into_an_installation_and_verified_there(tmp_path, pytorch, monkeypatch, capsys):
    tar = bundled(tmp_path, "--model-only", "--model", str(model(tmp_path / "Mine")), torch_index=pytorch)
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "other"))
    with tarfile.open(tar) as archive:
        archive.extractall(tmp_path / "other", filter="data")
    assert main(["models", "verify", "mine"]) == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["models"]
    with (tmp_path / "other/models/mine/config.json").open("a") as file:
        file.write(" ")
    assert main(["models", "verify", "mine"]) == 1


def test_a_model_that_was_changed_since_it_came_is_refused(tmp_path, pytorch, capsys):
    assert main(["models", "import", str(BUNDLED), "--name", "mine"]) == 0
    with (tmp_path / "home/models/mine/config.json").open("a") as file:
        file.write(" ")
    path = bundled(tmp_path, "--model", "mine", torch_index=pytorch, status=1)
    assert "config.json is wrong" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "nowhere"], "no model folder at"),
        (["--model", "one/mine", "--model", "two/mine"], "two models would lie in models/mine"),
        (["--model-only"], "--model-only needs --model DIR"),
        (["--model-only", "--model", "bundled"], "--model-only needs --model DIR"),
        (["--python", "3.9"], "--python 3.9: give 3.11 or newer"),
        (["--python", "3.x"], "--python 3.x"),
        (["--platform", "win_amd64"], "a bundle for Windows or macOS is made there"),
        (["--platform", "manylinux2014_aarch64", "--python", "3.12"], "give it with --wheel FILE"),
        (["--wheel", "absent-1-py3-none-any.whl"], "cannot be read: No such file"),
        (["--wheel", "one/mine/config.json"], "is no wheel"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_bundled_is_one_sentence(tmp_path, pytorch, monkeypatch, capsys, flags, message):
    model(tmp_path / "one/mine")
    model(tmp_path / "two/mine")
    monkeypatch.chdir(tmp_path)
    path = bundled(tmp_path, *flags, torch_index=pytorch, status=1)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not path.exists()


# ---- our own wheel, other platforms ----


@pytest.mark.parametrize(
    ("wheel", "message"),
    [({"version": "0.0.1"}, "is qwen-aio 0.0.1, and this is"), ({"tag": "cp311-cp311-linux_s390x"}, "not for Python")],
    ids=str,
)
def test_a_wheel_of_another_version_or_platform_is_refused(tmp_path, pytorch, capsys, wheel, message):
    bundled(tmp_path, *own(tmp_path, **wheel), torch_index=pytorch, status=1)
    assert message in capsys.readouterr().err


def test_another_platform_gets_its_wheels_and_what_its_python_alone_needs(tmp_path, monkeypatch):
    """pip judges requirements by the Python that runs it, which is another one here."""
    needed, unneeded = "bare; python_version >= '3.13'", "tinydep; python_version < '3.13'"
    arm = make_wheel(tmp_path / "w", "compiled", "1", tag="cp313-cp313-manylinux_2_27_aarch64")
    intel = make_wheel(tmp_path / "w", "compiled", "1", tag="cp313-cp313-manylinux_2_27_x86_64")
    newer = make_wheel(tmp_path / "w", "compiled", "2", tag="cp313-cp313-manylinux_2_34_aarch64")
    make_index(tmp_path / "indexes/simple", arm, intel, newer)
    wheel = own(tmp_path, requires=("compiled", needed, unneeded), tag="cp313-cp313-linux_aarch64")
    flags = ("--platform", "manylinux_2_28_aarch64", "--python", "3.13")
    folder = unpack(bundled(tmp_path, *wheel, *flags, torch_index=""), tmp_path, name="there")
    names = {path.name for path in (folder / "wheels").iterdir()}
    assert {"compiled-1-cp313-cp313-manylinux_2_27_aarch64.whl", "bare-3.1-py3-none-any.whl"} <= names
    about = json.loads((folder / "bundle.json").read_text())
    assert (about["python"], about["machine"]) == ("3.13", "aarch64")
    assert b"python3.13" in (folder / "install.sh").read_bytes()


def test_a_wheel_is_packed_again_from_what_pip_installed(tmp_path):
    wheel = make_own_wheel(tmp_path)
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True)
    (info,) = site.glob("*.dist-info")
    installed = Distribution.at(info)
    (tmp_path / "made").mkdir()
    made = repacked(installed, tmp_path / "made")
    assert made.name == wheel.name
    first, again = (
        {name: content for name, content in WheelFile.open(path).files() if not name.endswith("RECORD")}
        for path in (wheel, made)
    )
    assert again == first
    command[-2:] = [str(tmp_path / "site2"), str(made)]
    subprocess.run(command, check=True)
    assert (tmp_path / "site2/qwen_aio/doorway.py").is_file()

    (site / "qwen_aio/doorway.py").write_text("changed")
    with pytest.raises(BundleFailed, match=r"doorway.py is not as it was installed.*--wheel FILE"):
        repacked(installed, tmp_path / "made")


# ---- whole or not at all ----

WRITES = """\
import resource, signal, sys
from pathlib import Path
from qwen_aio.bundling.archive import Entry, write_archive
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write_archive(Path(sys.argv[1]), [Entry("large", bytes(300_000))], top="top")
"""


@pytest.mark.parametrize("before", [None, b"of an earlier bundle"])
@pytest.mark.parametrize(("answer", "status"), [("SIG_IGN", 1), ("SIG_DFL", -signal.SIGXFSZ)], ids=["full", "killed"])
def test_no_half_tar_has_the_final_name(tmp_path, before, answer, status):
    """A limit of the size of files stands in for a full disk; unless it is ignored, its signal kills in the middle of a write."""
    path = tmp_path / "out.tar"
    if before:
        path.write_bytes(before)
    ended = subprocess.run([sys.executable, "-c", WRITES, str(path), answer], capture_output=True, text=True)
    assert ended.returncode == status, ended.stderr
    assert (path.read_bytes() if path.exists() else None) == before
    if answer == "SIG_IGN":
        assert "out.tar cannot be written" in ended.stderr
        assert [each.name for each in tmp_path.glob("*out.tar*")] == (["out.tar"] if before else [])
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
