"""Flags made from the fields of Settings, so that a setting is described once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from qwen_aio.config import Settings, load_settings

BALANCING = ("workers", "policy", "slow_ms")  # settings of a balancer alone
CLUSTER = ("balancer_port", "worker_port", "share_weights")  # settings of a cluster alone


def add_settings_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """A flag for each of `names`, or for every setting of a worker. Only what was typed appears in the namespace."""
    group = parser.add_argument_group("settings (also QWEN_AIO_* variables and keys of qwen_aio.toml)")
    for name in names or [name for name in Settings.model_fields if name not in (*BALANCING, *CLUSTER)]:
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        told = f"{field.description}{_told_default(field.default)}"
        if field.annotation is bool:
            group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=told)
        else:
            group.add_argument(flag, default=argparse.SUPPRESS, metavar=_metavar(name, field.annotation), help=told)
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file (qwen_aio.toml in home)")


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings of this run. Raises InvalidSettings."""
    typed = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    return load_settings(typed, config=arguments.config)


def _metavar(name: str, annotation: Any) -> str:
    """The words there are to choose from; if it is no such choice, the setting's name."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal]
    return "|".join(word for kind in kinds for word in get_args(kind)) or name.upper()


def _told_default(default: Any) -> str:
    return "" if default in (None, False, ()) else f" [{default}]"
