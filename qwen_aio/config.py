"""Settings, read once at the edge: flags > QWEN_AIO_* environment > qwen_aio.toml > defaults.

Only the command line reads the environment. What only a maintainer would change is a constant
in the module that uses it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from qwen_aio.errors import InvalidSettings
from qwen_aio.files import read_text
from qwen_aio.machine.folders import PACKAGE, expanded, home
from qwen_aio.service_links import drop_service_links

ROOT_PATH = r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+"
WORKER_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
MAX_THREADS = 256
PAGE_PORT = 7860
Port = Annotated[int, Field(ge=1, le=65535)]
HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?=.*[a-z])[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


Reader = Literal["worker", "balancer", "page", "cluster"]  # a kind of process that reads settings
PUBLIC: tuple[Reader, ...] = ("balancer", "page")  # a cluster's workers are reached through these
EVERY: tuple[Reader, ...] = ("worker", "balancer", "page")


def _setting(default: Any, description: str, *readers: Reader) -> Any:
    """A field; `readers` are the processes that have its flag, and get it from a cluster."""
    return Field(default, description=description, json_schema_extra={"readers": list(readers)})


class Settings(BaseModel):
    """What a user may set. Every field is a flag, a QWEN_AIO_* variable and a key of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = _setting("127.0.0.1", "address to listen on", *EVERY)
    port: Port | None = _setting(
        None, "port to listen on (page: 7860, balancer: 8000, worker: first free one from 7861)", *EVERY
    )
    id: str | None = _setting(None, "name of this worker: letters, digits, dots, dashes (qwen-<port>)", "worker")
    model: str | None = _setting(None, "model folder, or 'bundled'", "worker")
    engine: Literal["auto", "qwen", "transformers"] = _setting(
        "auto", "what computes the model; auto is qwen for Qwen2 and Qwen3, else transformers, slowly", "worker"
    )
    precision: Literal["auto", "fp32", "int8", "int4", "bf16"] = _setting(
        "auto", "precision of the weights; auto is int8 where the model answers as it does in fp32", "worker"
    )
    force_precision: bool = _setting(False, "take int4 even where it is far from fp32", "worker")
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | None = _setting(
        None, "threads of a worker (OMP_NUM_THREADS, else the cores it may use; a cluster divides them)", "worker"
    )
    prompts_dir: Path | None = _setting(None, "folder of tasks (prompts/ in home, else the packaged ones)", "worker")
    status_dir: Path | None = _setting(
        None, "folder of status.json and admin.json (status/ in home)", "worker", "balancer"
    )
    offline: bool = _setting(
        True,
        "refuse, and count, what would leave this process for other machines than the configured servers [on]",
        *EVERY,
        "cluster",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "how much is logged", *EVERY)
    log_format: Literal["text", "json"] = _setting("text", "how a line of the log is written", *EVERY)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "host names, besides loopback, that may be asked for; commas between them", *PUBLIC
    )
    root_path: str = _setting("", "path below which a reverse proxy shows this server, e.g. /qwen", *PUBLIC)
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "addresses or networks of reverse proxies whose X-Forwarded-Host, -Prefix and -For count, commas between them",
        *PUBLIC,
    )
    tls_certificate: Path | None = _setting(
        None,
        "PEM file with the certificate chain of this server, which then speaks TLS; read again when it changes",
        *PUBLIC,
    )
    tls_key: Path | None = _setting(None, "PEM file with its key (in the file of the certificate)", *PUBLIC)
    tls_ca: Path | None = _setting(
        None, "PEM file of authorities that the servers behind this one are checked with, besides the system's", *PUBLIC
    )
    insecure: bool = _setting(
        False, "listen beyond this machine without keys: everybody who reaches the server may use all of it", *PUBLIC
    )
    keys_file: Path | None = _setting(
        None, "file of keys, made by `qwen-aio keys add` (keys.json in home); while it exists, a key is needed", *EVERY
    )
    service_key_file: Path | None = _setting(
        None, "file with the key for the servers behind this one (service.key beside the file of keys)", *PUBLIC
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = _setting(
        None, "requests a minute of one key, or of one address where there are no keys (no limit)", *PUBLIC
    )
    tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = _setting(
        None, "tokens a minute of one key or address, of prompts and answers together (no limit)", *PUBLIC
    )
    allow_system_messages: bool = _setting(
        False, "take system messages of clients on OpenAI's routes, instead of the chat task's", "worker", "balancer"
    )
    max_context: Annotated[int, Field(ge=128, le=32768)] = _setting(
        2048, "tokens of prompt and answer together", "worker"
    )
    kv_mb: Annotated[int, Field(ge=8, le=65536)] | None = _setting(
        None, "memory for keys and values, in MB (what the contexts need, at most 512)", "worker"
    )
    max_batch_tokens: Annotated[int, Field(ge=16, le=4096)] = _setting(
        256, "tokens computed in one step; a longer prompt is computed in parts, between which others go on", "worker"
    )
    max_queue: Annotated[int, Field(ge=1, le=4096)] = _setting(
        256, "requests that may wait in a worker or a balancer", "worker", "balancer"
    )
    workers: tuple[str, ...] = _setting(
        (),
        "ids in status.json, id=http://host:port, or dns:name:port, commas between them (all ids in status.json)",
        "balancer",
    )
    policy: Literal["weighted", "linear", "least_loaded", "round_robin", "random"] = _setting(
        "weighted", "how a worker is chosen", "balancer"
    )
    slow_ms: Annotated[float, Field(gt=0, le=3_600_000)] = _setting(
        1500.0, "three reports above this mean latency in a row, and a worker gets new work last", "balancer"
    )
    balancer_port: Port = _setting(8000, "port of a cluster's balancer", "cluster")
    worker_port: Port = _setting(7861, "port of a cluster's first worker; the others follow, 100 apart", "cluster")
    share_weights: Literal["on", "off"] | None = _setting(
        None,
        "whether a cluster's workers share one copy of the weights (on for several, where one can fork)",
        "cluster",
    )
    golden: Literal["strict", "warn", "off"] | None = _setting(
        None, "what a failing golden case does (strict for the shipped record, warn for your own)", "worker"
    )

    @field_validator("allowed_hosts", "trusted_proxies", "workers", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        *(
            "model",
            "prompts_dir",
            "status_dir",
            "keys_file",
            "service_key_file",
            "tls_certificate",
            "tls_key",
            "tls_ca",
        ),
        mode="before",
    )
    @classmethod
    def _expand_home(cls, value: object) -> object:
        # A shell expands ~ in an argument, but not in a file, and not after "--model=".
        return str(expanded(value)) if isinstance(value, str) and value.startswith("~") else value

    @field_validator("host")
    @classmethod
    def _plain_host(cls, value: str) -> str:
        """One spelling for each address: no brackets, IPv4 as such. Raises ValueError."""
        plain = value.strip().lower().removesuffix(".")
        plain = plain[1:-1] if plain.startswith("[") and plain.endswith("]") else plain
        try:
            address = ipaddress.ip_address(plain)
        except ValueError:
            if HOST_NAME.fullmatch(plain):
                return plain
            raise ValueError(f"{value!r} is neither a host name nor an IP address, e.g. 127.0.0.1 or ::1") from None
        return str((isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address)

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str | None) -> str | None:
        if value is not None and not WORKER_ID.fullmatch(value):
            raise ValueError("an id has 1 to 64 letters, digits, dots and dashes, e.g. qwen-prod-01")
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        path = value.rstrip("/")
        if path and not re.fullmatch(ROOT_PATH, path):
            raise ValueError(f"{value!r} is no path such as /qwen")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as exc:
                raise ValueError(f"{network!r} is no address or network such as 127.0.0.1 or 10.0.0.0/8") from exc
        return value


def settings_of(*readers: Reader) -> tuple[str, ...]:
    """The names of the settings that at least one of these processes reads."""
    fields = Settings.model_json_schema()["properties"]
    return tuple(name for name, field in fields.items() if set(field["readers"]) & set(readers))


def load_settings(flags: Mapping[str, Any], *, config: Path | None = None) -> Settings:
    """The settings of this run; `flags` holds only what the user typed. Raises InvalidSettings.

    Without `config`, qwen_aio.toml in home is read if it is there. Removes service links from the
    environment.
    """
    file = config or home() / "qwen_aio.toml"
    in_file = _read(file, is_needed=config is not None)
    drop_service_links(os.environ, ("QWEN_AIO_PORT", "QWEN_AIO_BALANCER_PORT", "QWEN_AIO_WORKER_PORT"))
    environ = {name.lower(): value for name, value in os.environ.items()}
    in_environment = {name: environ[key] for name in Settings.model_fields if (key := f"qwen_aio_{name}") in environ}
    try:
        return Settings.model_validate({**in_file, **in_environment, **flags})
    except ValidationError as exc:
        mistakes = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise InvalidSettings(f"{mistakes} (from flags, QWEN_AIO_* variables or {file})") from exc


def _read(file: Path, *, is_needed: bool) -> dict[str, Any]:
    """The table in the settings file. Raises InvalidSettings."""
    try:
        return tomllib.loads(read_text(file))
    except (FileNotFoundError, NotADirectoryError) as exc:
        if is_needed:
            raise InvalidSettings(f"no settings file at {file}") from exc
        return {}
    except OSError as exc:
        other = "choose another" if is_needed else "set QWEN_AIO_HOME to a folder that this user may write to"
        raise InvalidSettings(f"{file} cannot be read: {exc.strerror}; {other}") from exc
    except ValueError as exc:
        raise InvalidSettings(f"{file} is not valid: {exc}") from exc


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`, as Settings spell it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_address(url: str, *, flag: str) -> str:
    """`url` without a final slash. Raises InvalidSettings if it is not http(s)://host[:port]."""
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or "@" in parts.netloc or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidSettings(f"--{flag}: {url!r} is no address such as http://127.0.0.1:8000", param=flag)
    return f"{parts.scheme}://{parts.netloc}"


def prompts_dir(settings: Settings) -> Path:
    """The folder of tasks: the given one, prompts/ in home, or the shipped one."""
    places = (home() / "prompts", PACKAGE / "prompts", PACKAGE.parent / "prompts")
    return settings.prompts_dir or next((place for place in places if place.is_dir()), places[0])


def status_dir(settings: Settings) -> Path:
    """The folder that all workers of one service share."""
    return settings.status_dir or home() / "status"


def keys_file(settings: Settings) -> Path:
    """Where the keys are, if there are any."""
    return settings.keys_file or home() / "keys.json"


def service_key_file(settings: Settings) -> Path:
    """Where the key is that this server sends to those behind it, if there is one."""
    return settings.service_key_file or keys_file(settings).with_name("service.key")
