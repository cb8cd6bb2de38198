"""The systemd unit of a program: text, and nothing is started. service_manager.py is its other end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qwen_aio.cluster.supervisor import STOP_S
from qwen_aio.errors import InvalidSettings

USER = "qwen-aio"  # of the system's services, and the name of their folder in /var/lib
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # by ProtectHome and PrivateTmp
STAGES = 4  # of a cluster that ends: page, balancer, workers, fork server
Program = Literal["cluster", "worker", "balancer"]
COMMANDS: Mapping[Program, Sequence[str]] = {
    "cluster": ("cluster",),
    "worker": ("serve", "--mode", "worker"),
    "balancer": ("balance",),
}
_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@+-]+")
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r", "%": "%%"}


@dataclass(frozen=True)
class ServiceUnit:
    """`program` with `flags`, as a service of the system, or, with a `home`, as one of the user's own."""

    program: Program
    flags: tuple[str, ...] = ()
    home: Path | None = None
    python: str = sys.executable

    @property
    def name(self) -> str:
        """What systemctl calls it."""
        return "qwen-aio" if self.program == "cluster" else f"qwen-aio-{self.program}"

    @property
    def systemctl(self) -> str:
        """The command that speaks to its manager."""
        return "systemctl" if self.home is None else "systemctl --user"

    def __str__(self) -> str:
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=StrictUndefined,
        )
        words = (self.python, "-m", "qwen_aio.cli.main", *COMMANDS[self.program], *self.flags)
        return environment.get_template("unit.service.j2").render(
            name=self.name,
            program=self.program,
            systemctl=self.systemctl,
            command=" ".join(quoted(word).replace("$", "$$") for word in words),
            home=f"QWEN_AIO_HOME=%S/{USER}" if self.home is None else quoted(f"QWEN_AIO_HOME={self.home}"),
            is_own=self.home is not None,
            user=USER,
            stop_s=round(STOP_S) * (STAGES if self.program == "cluster" else 1) + 5,
        )


def quoted(word: str) -> str:
    """`word` as systemd reads it back. In a command, $ has to be doubled besides."""
    if _PLAIN.fullmatch(word):
        return word
    return f'"{"".join(_ESCAPES.get(letter, letter) for letter in word)}"'


def check_reachable(places: Iterable[Path]) -> None:
    """Raises InvalidSettings for an installation that a service of the system would not see."""
    for place in places:
        if any(place.is_relative_to(folder) for folder in HIDDEN):
            raise InvalidSettings(
                f"a service of the system does not see {place} (ProtectHome, PrivateTmp); install qwen-aio elsewhere, "
                "for example into /opt/qwen-aio, or make a service of your own with --user"
            )
