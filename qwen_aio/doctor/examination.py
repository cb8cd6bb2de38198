"""All checks, in the order in which they are shown: what each reads, and who judges it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.config import Settings, prompts_dir, status_dir
from qwen_aio.doctor.clock import clock_findings, read_dates
from qwen_aio.doctor.environment import proxy_findings, variable_findings
from qwen_aio.doctor.finding import Finding
from qwen_aio.doctor.folders import read_folder, state_findings, status_findings
from qwen_aio.doctor.installation import (
    OWN_NAME,
    Requirement,
    extra_findings,
    installed_version,
    package_findings,
    python_findings,
    read_requirements,
    read_torch,
    torch_findings,
)
from qwen_aio.doctor.model import engine_findings, hash_findings, model_findings, precision_findings, read_hashes
from qwen_aio.doctor.ports import ClientAt, port_findings, read_ports
from qwen_aio.doctor.processor import core_findings, kernel_findings, memory_findings
from qwen_aio.doctor.start import Start
from qwen_aio.doctor.tasks import golden_findings, task_findings
from qwen_aio.engine.native import bindings
from qwen_aio.errors import SetupError
from qwen_aio.machine.cores import cpu_quota, usable_cores
from qwen_aio.machine.folders import PACKAGE, home, state_dir
from qwen_aio.machine.memory import available_memory
from qwen_aio.machine.processor import cpu_flags
from qwen_aio.startup.exposure import check_exposure, service_key
from qwen_aio.startup.listening import url_of
from qwen_aio.startup.tls import certificate, tls_to
from qwen_aio.tasks.lint import LintReport, lint
from qwen_aio.worker.loading import encoder_of

Checks = Mapping[str, Callable[[], Sequence[Finding]]]  # by the name that is shown


def checks_of_machine() -> Checks:
    """Those that are the same for every start."""
    return {
        "python": lambda: python_findings(platform.python_version(), sys.executable, largest_size=sys.maxsize),
        "packages": lambda: package_findings(_requirements(), recorded_version=installed_version(OWN_NAME)),
        "extras": lambda: extra_findings(_requirements() or ()),
        "clock": lambda: clock_findings(time.time(), read_dates([PACKAGE / "__init__.py", bindings.PATH])),
        "proxies": lambda: proxy_findings(os.environ),
        "variables": lambda: variable_findings(os.environ),
    }


def checks_of_start(start: Start) -> Checks:
    """Those that depend on settings."""
    settings = start.settings
    return {
        "settings": lambda: _settings_findings(start),
        "model": lambda: model_findings(start.model),
        "engine": lambda: engine_findings(start.engine),
        "tasks": lambda: task_findings(start.tasks, _lint_reports(start), folder=prompts_dir(settings)),
        "kernel": lambda: kernel_findings(start.kernel, cpu_flags(), is_built=bindings.PATH.exists()),
        "torch": lambda: torch_findings(
            read_torch(_requirements()), kernel=start.kernel.name, may_be_int8=settings.precision != "fp32"
        ),
        "hashes": lambda: hash_findings(read_hashes(start), folder=start.model.path),
        "precision": lambda: precision_findings(start.precision, settings),
        "golden": lambda: _golden_findings(start),
        "cores": lambda: core_findings(
            usable_cores(),
            num_cpus=os.cpu_count(),
            quota=cpu_quota(),
            num_workers=start.num_workers,
            num_threads=start.num_threads,
        ),
        "memory": lambda: memory_findings(start.need, available_memory()),
        "ports": lambda: port_findings(read_ports(start.addresses, _client_at(settings))),
        "status": lambda: status_findings(read_folder(status_dir(settings))),
        "state": lambda: state_findings(read_folder(state_dir()), needed_mb=start.need.weights.get("int8", 0)),
    }


def findings_of(checks: Checks) -> Iterator[tuple[str, Finding]]:
    """The findings of every check, with its name. One that fails ends no other."""
    told: dict[str, str] = {}  # message -> the check that said it first
    for name, check in checks.items():
        try:
            findings = check()
        except SetupError as exc:
            first = told.setdefault(exc.message, name)
            problem = Finding("problem", exc.message)
            findings = [problem if first == name else Finding("note", f"not checked, because of {first}")]
        except OSError as exc:
            findings = [Finding("problem", f"cannot be read: {exc}", "let this user read it")]
        except Exception as exc:  # the others may still find what is wrong
            findings = [Finding("problem", f"this check failed: {exc!r}", "the others are not affected; report it")]
        for finding in findings:
            yield name, finding


def _requirements() -> list[Requirement] | None:
    return read_requirements(platform=sys.platform)


def _settings_findings(start: Start) -> list[Finding]:
    """Raises InvalidSettings for what would end the start at once."""
    check_exposure(start.settings)
    certificate(start.settings)
    return [Finding("ok", f"{start}; home is {home()}")]


def _golden_findings(start: Start) -> list[Finding]:
    if start.settings.golden == "off":
        return [Finding("note", "off: a damaged model or task goes unnoticed", "omit --golden off")]
    return golden_findings(start.tasks, start.golden_records, model_sha=start.model_sha)


def _client_at(settings: Settings) -> ClientAt:
    """Raises InvalidSettings."""
    key, tls, has_tls = service_key(settings), tls_to(settings), settings.tls_certificate is not None

    def client_at(host: str, port: int) -> AsyncClient:
        url = url_of(host, port, has_tls=has_tls and host == settings.host)
        return AsyncClient(url, key=key, tls=tls(url))

    return client_at


def _lint_reports(start: Start) -> list[LintReport]:
    """None for other models than ours: their tokenizer is that of transformers, which takes seconds to import."""
    if start.engine.kind == "transformers":
        return []
    encoder = encoder_of(start.settings, start.model)
    return [lint(task, encoder) for task in start.tasks.values()]
