"""What is installed without a checkout is whole: tasks, bundled model, page, and a home of the user's own."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.campaign import in_campaign
from tests.e2e.processes import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("qwen_aio-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def installed(
    site: Path, folder: Path, *arguments: str, before: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """`qwen-aio` of the wheel, started in `folder` without a home of ours or anybody's."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("QWEN_AIO_") and name not in ("HOME", "XDG_DATA_HOME")
    }
    environment |= {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", **variables}
    code = "import qwen_aio, sys; from qwen_aio.cli.main import main; print(qwen_aio.__file__); sys.exit(main())"
    command = [*before, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def as_unknown_user() -> tuple[str, ...]:
    """What makes a command run under a uid that stands in no list of users; files stay as readable as they are."""
    command = (shutil.which("unshare") or "unshare", "--user", "--map-user=4711")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user namespaces here")
    return command


def test_an_installed_wheel_decides_and_answers_outside_the_checkout(site, tmp_path):
    arguments = ("run", "快递太慢了,差评!", "--reply", "--golden", "strict")
    told = installed(site, tmp_path, *arguments, XDG_DATA_HOME=str(tmp_path / "data"))
    assert told.returncode == 0, told.stderr
    assert str(site) in told.stdout
    assert "【😔 LLM 情感判断:负面|" in told.stdout


def test_an_installed_wheel_writes_a_unit(site, tmp_path):
    flags = ("service", "install", "--user", "--dir", str(tmp_path))
    told = installed(site, tmp_path, *flags, XDG_DATA_HOME=str(tmp_path / "data"))
    assert told.returncode == 0, told.stderr
    assert f"QWEN_AIO_HOME={tmp_path}/data/qwen_aio\n" in (tmp_path / "qwen-aio.service").read_text()


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@needs_compiler
def test_a_wheel_has_the_kernels_of_its_platform_and_needs_no_compiler(site, tmp_path):
    (wheel,) = site.parent.glob("*.whl")
    assert not wheel.name.endswith("-any.whl")
    variables = {"QWEN_AIO_KERNEL": "plain", "PATH": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    told = installed(site, tmp_path, "run", "差评", **variables)
    assert told.returncode == 0, told.stderr


@needs_compiler
def test_no_kernel_defines_a_function_that_the_linker_could_take_for_all(site):
    """A weak one may be linked into code that runs on every processor: compiled for AVX-512, it ends the process."""
    kernels = sorted((ROOT / "build").glob("temp.*/native/kernel_*.o"))
    assert kernels
    symbols = subprocess.run(["nm", *map(str, kernels)], check=True, capture_output=True, text=True).stdout
    assert re.findall("^[0-9a-f ]{16} [WVu] .*", symbols, re.MULTILINE) == []


def test_without_a_compiler_the_installation_goes_on_and_says_so(tmp_path):
    build = ["build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment |= {"PATH": str(tmp_path)}
    command = [sys.executable, "setup.py", "--quiet", *build]
    told = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stderr.startswith("The C++ kernels are not built, the slower forward pass in torch is used: ")
    assert told.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.so"))


def test_a_user_without_a_home_needs_only_a_data_folder(site, tmp_path, as_unknown_user):
    told = installed(site, tmp_path, "run", "差评", before=as_unknown_user, XDG_DATA_HOME=str(tmp_path / "data"))
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "data" / "qwen_aio" / "state").is_dir()


@pytest.mark.parametrize("variables", [{"XDG_DATA_HOME": "relative"}, *in_campaign({}, {"XDG_DATA_HOME": ""})], ids=str)
@pytest.mark.parametrize("command", ["run", "serve", "balance", "cluster", "tune"])
def test_a_user_without_any_home_is_told_which_variable_to_set(site, tmp_path, as_unknown_user, command, variables):
    text = ("hi",) if command == "run" else ()
    told = installed(site, tmp_path, command, *text, before=as_unknown_user, **variables)
    assert told.returncode == 1
    assert "has no home folder" in told.stderr
    assert "set QWEN_AIO_HOME" in told.stderr
    assert told.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
