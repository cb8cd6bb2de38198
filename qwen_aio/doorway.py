"""The first step of every program: is this Python new enough, and are our packages there? If not, one sentence says so.

Written so that it runs on an old Python too, and imports nothing but the standard library before it has looked.
"""

import os
import sys

OLDEST = (3, 11)
TORCH_LINE = "pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0"
OWN_LINE = "pip install -e ."


def start(program: str = "qwen-aio", command: "str | None" = None) -> int:
    """Run the program; its exit status, which is 1 where it cannot run at all."""
    if sys.version_info < OLDEST:
        return _refuse(program, *_of_python())
    try:
        from qwen_aio.cli.main import main, run_process

        return run_process(lambda: main(program=program, command=command), program=program)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if not _is_missing(package):
            raise  # a mistake of ours: whoever mends it needs the traceback
        return _refuse(program, *_of_package(program, package))


def _of_python() -> "tuple[str, str]":
    found = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST))
    return (
        f"this is Python {found}, but {oldest} or newer is needed: install it, then `make run PYTHON=python{oldest}`",
        f"当前是 Python {found}，需要 {oldest} 或更新的版本：请先安装，再执行 `make run PYTHON=python{oldest}`",
    )


def _of_package(program: str, package: str) -> "tuple[str, str]":
    folder, then = (".venv\\Scripts\\", "; ") if os.name == "nt" else (".venv/bin/", " && ")
    lines = (f"{sys.executable} -m venv .venv", f"{folder}{TORCH_LINE}", f"{folder}{OWN_LINE}")
    by_hand = then.join([*lines, f"{folder}python {program}"])
    return (
        f"this Python ({sys.executable}) lacks the package {package}: run `make run`, or `{by_hand}`",
        f"这个 Python（{sys.executable}）缺少依赖包 {package}：请执行 `make run`，或 `{by_hand}`",
    )


def _is_missing(package: str) -> bool:
    """Whether `package` is a foreign one that is not there."""
    from importlib.util import find_spec

    return package not in ("", "qwen_aio", *sys.stdlib_module_names) and find_spec(package) is None


def _refuse(program: str, english: str, chinese: str) -> int:
    sys.stderr.write(f"{program}: {english}\n{program}: {chinese}\n")
    return 1
