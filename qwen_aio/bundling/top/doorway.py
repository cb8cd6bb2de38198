"""Doorway of an installed bundle: `python app.py ...` and `python balancer.py ...`, with any Python.

It goes on in the environment that install.sh made beside it.
"""

import os
import sys
from pathlib import Path

COMMANDS = {"app.py": "serve", "balancer.py": "balance"}
HERE = Path(__file__).resolve().parent
PROGRAM = Path(__file__).name
VENV = HERE / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

if __name__ == "__main__":
    if not (HERE / ".installed").is_file() or not PYTHON.exists():
        sys.stderr.write(f"{PROGRAM}: not installed yet, or not to its end: run sh {HERE / 'install.sh'}\n")
        sys.stderr.write(f"{PROGRAM}: 尚未安装，或安装没有完成：请执行 sh {HERE / 'install.sh'}\n")
        raise SystemExit(1)
    if Path(sys.prefix).resolve() == VENV:
        from qwen_aio.doorway import start

        raise SystemExit(start(program=PROGRAM, command=COMMANDS[PROGRAM]))
    # -P: nothing that lies in this folder is imported in place of a package.
    command = [str(PYTHON), "-P", str(HERE / PROGRAM), *sys.argv[1:]]
    if os.name == "nt":  # there exec returns to the shell at once
        import subprocess

        raise SystemExit(subprocess.call(command))
    os.execv(command[0], command)
