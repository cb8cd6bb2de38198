"""The variables that a server removes from its environment, and the threads that it reads there.

Libraries read the environment by themselves: httpx parses proxies and certificates as soon as
gradio is imported, and fails on many common values; gradio has some forty variables of its own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from qwen_aio.config import MAX_THREADS, Settings
from qwen_aio.errors import SetupError
from qwen_aio.startup.messages import say


def ignore_proxies(environ: MutableMapping[str, str]) -> None:
    """Make this process, and those it starts, connect directly everywhere.

    A text for the user's own machine must not pass through another. Where no variable is set,
    macOS and Windows take proxies from their settings: `*` rules these out as well.
    """
    for name in [name for name in environ if name.lower().endswith("_proxy")]:
        del environ[name]
    environ["no_proxy"] = "*"


def prepare_gradio(environ: MutableMapping[str, str], *, state: Path) -> None:
    """Remove gradio's variables, and give it a folder below `state`, before it is imported.

    Raises SetupError if no folder can be written to.
    """
    for name in [name for name in environ if name.startswith(("GRADIO_", "SSL_CERT_"))]:
        if not name.startswith("GRADIO_ANALYTICS_"):  # layout.py sets these
            del environ[name]
    environ["GRADIO_TEMP_DIR"] = str(_folder_for_gradio(state / "gradio"))


def _folder_for_gradio(own: Path) -> Path:
    """`own`, or else a temporary one; gradio always makes an empty folder there."""
    try:
        own.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=own).close()
    except OSError as why:
        try:
            temporary = Path(tempfile.mkdtemp(prefix="qwen_aio-"))
        except OSError:
            raise SetupError(
                f"the page needs a folder that it may write to, and there is none, neither {own} ({why.strerror}) nor "
                "one for temporary files; set QWEN_AIO_HOME or TMPDIR to one"
            ) from why
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary
    return own


def stated_threads(settings: Settings) -> int | None:
    """Those of --threads, else of OMP_NUM_THREADS, which it prints; None where neither is set."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    number = stated.partition(",")[0].strip()  # the others are for threads inside threads
    if settings.threads is not None:
        if stated and number != str(settings.threads):
            say(f"threads: {settings.threads}; the setting wins over OMP_NUM_THREADS={stated}", file=sys.stderr)
        return settings.threads
    if not stated:
        return None
    if not number.isdecimal() or not 1 <= int(number) <= MAX_THREADS:
        say(f"OMP_NUM_THREADS={stated} is ignored: not a number from 1 to {MAX_THREADS}", file=sys.stderr)
        return None
    say(f"threads: {number}, from OMP_NUM_THREADS={stated}; --threads would win over it", file=sys.stderr)
    return int(number)
