"""Flags made from the fields of Settings: a program's own, and those that it starts a child with.

Settings reach a child in one way: as the flags that this process was started with, but for what the
child has of its own. A child reads the environment and the settings file by itself.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from qwen_aio.config import Reader, Settings, load_settings, settings_of
from qwen_aio.startup.messages import translated


def add_settings_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """A flag for each of `names`. Only what was typed appears in the namespace."""
    group = parser.add_argument_group("settings (also QWEN_AIO_* variables and keys of qwen_aio.toml)")
    for name in names:
        field = Settings.model_fields[name]
        hint = "" if field.default in (None, False, True, ()) else f" [{field.default}]"
        text = f"{translated(field.description or '')}{hint}"
        if field.annotation is bool:
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            group.add_argument(_flag(name), action=action, default=argparse.SUPPRESS, help=text)
        else:
            metavar = _metavar(name, field.annotation)
            group.add_argument(_flag(name), default=argparse.SUPPRESS, metavar=metavar, help=text)
    group.add_argument("--config", type=Path, metavar="FILE", help="settings file (qwen_aio.toml in home)")


def settings_from(arguments: Namespace) -> Settings:
    """The settings of this run. Raises InvalidSettings."""
    typed = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    return load_settings(typed, config=getattr(arguments, "config", None))


def child_arguments(arguments: Namespace, reader: Reader, **own: object) -> Namespace:
    """`own`, and what was typed here of the settings that `reader` reads; None omits one."""
    typed = {name: getattr(arguments, name, None) for name in ("config", *settings_of(reader))}
    merged = {**own, **typed, **own}  # its own come first, and win
    return Namespace(**{name: value for name, value in merged.items() if value is not None})


def as_flags(arguments: Namespace) -> list[str]:
    """The command line that is parsed to `arguments`."""
    flags: list[str] = []
    for name, value in vars(arguments).items():
        if isinstance(value, bool):
            flags += [_flag(name if value else f"no_{name}")]
        else:
            flags += [_flag(name), str(value)]
    return flags


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _metavar(name: str, annotation: Any) -> str:
    """The words there are to choose from; if it is no such choice, the setting's name."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal]
    return "|".join(word for kind in kinds for word in get_args(kind)) or name.upper()
