#!/bin/sh
# install.sh: checks every file of this folder, then installs it into .venv here. Needs Python and no network.
# install.sh --upgrade OLD: the same, and takes settings, keys, prompts and state over from the folder OLD.
# install.sh --rollback: back to the folder that the upgrade came from.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

found=
for python in ${PYTHON:+"$PYTHON"} python@PYTHON@ python3 python; do
    if command -v "$python" >/dev/null 2>&1; then
        found=${found:-$python}
        if is_new_enough "$python"; then
            exec "$python" -I "$here/installer.py" "$@"
        fi
    fi
done
version=missing
if [ -n "$found" ]; then
    version=$("$found" --version 2>&1) || version="not able to start"
fi
echo "install.sh: ${found:-python3} is $version, but Python 3.11 or newer is needed: install Python @PYTHON@," \
    "then PYTHON=python@PYTHON@ sh $here/install.sh" >&2
echo "install.sh: ${found:-python3} 是 $version，需要 Python 3.11 或更新的版本：请先安装 Python @PYTHON@，" \
    "再执行 PYTHON=python@PYTHON@ sh $here/install.sh" >&2
exit 1
