"""The first step of every program: checks the version of Python and that all packages are there.

Runs on an old Python too, and imports only the standard library before it has checked.
"""

import os
import sys
from pathlib import Path

OLDEST = (3, 11)
TORCH_LINE = "pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0"
OWN_LINE = "pip install -e ."


def start(program: str = "qwen-aio", command: "str | None" = None) -> int:
    """Run the program; its exit status, which is 1 where it cannot run at all."""
    if sys.version_info < OLDEST:
        return _refuse(program, *_of_python())
    try:
        from qwen_aio.startup.process import run_process

        return run_process(lambda: _run(program, command), program=program)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if not _is_missing(package):
            raise  # a bug, not a missing dependency: the traceback is needed
        return _refuse(program, *_of_package(program, package))


def _run(program: str, command: "str | None") -> int:
    if command is None and not sys.argv[1:]:
        from qwen_aio.cli.first_lines import print_first_lines

        return print_first_lines()
    from qwen_aio.startup.phases import phase

    with phase("loading the program"):
        from qwen_aio.cli.main import main
    return main(program=program, command=command)


def _of_python() -> "tuple[str, str]":
    found = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST))
    return (
        f"this is Python {found}, but {oldest} or newer is needed: install it, then `make run PYTHON=python{oldest}`",
        f"当前是 Python {found}，需要 {oldest} 或更新的版本：请先安装，再执行 `make run PYTHON=python{oldest}`",
    )


def _of_package(program: str, package: str) -> "tuple[str, str]":
    english = f"this Python ({sys.executable}) lacks the package {package}"
    chinese = f"这个 Python（{sys.executable}）缺少依赖包 {package}"
    if not (Path(__file__).parents[1] / "pyproject.toml").is_file():  # installed, not a checkout
        return f"{english}: install qwen-aio again, with its dependencies", f"{chinese}：请连同依赖重新安装 qwen-aio"
    folder, then = (".venv\\Scripts\\", "; ") if os.name == "nt" else (".venv/bin/", " && ")
    command = f"python {program}" if program.endswith(".py") else program
    lines = (f"{sys.executable} -m venv .venv", *(folder + line for line in (TORCH_LINE, OWN_LINE, command)))
    return (
        f"{english}: run `make run`, or `{then.join(lines)}`",
        f"{chinese}：请执行 `make run`，或 `{then.join(lines)}`",
    )


def _is_missing(package: str) -> bool:
    """Whether `package` is a dependency that is not installed."""
    from importlib.util import find_spec

    return package not in ("", "qwen_aio", *sys.stdlib_module_names) and find_spec(package) is None


def _refuse(program: str, english: str, chinese: str) -> int:
    sys.stderr.write(f"{program}: {english}\n{program}: {chinese}\n")
    return 1
