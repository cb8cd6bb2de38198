"""Variables that lead requests elsewhere, or that nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from qwen_aio.cluster import lifeline
from qwen_aio.config import Settings
from qwen_aio.doctor.finding import Finding
from qwen_aio.engine.native import bindings
from qwen_aio.service_links import is_service_variable
from qwen_aio.startup import language

PREFIX = "QWEN_AIO_"
SETTINGS = frozenset(PREFIX + name.upper() for name in Settings.model_fields)  # in any letters
OTHERS = frozenset(  # in these alone
    {f"{PREFIX}HOME", f"{PREFIX}KEY", bindings.VARIABLE, language.VARIABLE, lifeline.VARIABLE}
)
PROXIES = ("http_proxy", "all_proxy")  # that plain HTTP to this machine would go through
LOOPBACK = ("localhost", "127.0.0.1")
CLOSE = 0.7  # how alike two names are, from 0 to 1, without our prefix


def proxy_findings(environment: Mapping[str, str]) -> list[Finding]:
    """Names no proxy: its address may hold a password."""
    found = {name.lower(): (name, value) for name, value in environment.items() if value}
    taken = [found[name][0] for name in PROXIES if name in found]
    if not taken:
        return [Finding("ok", "none for HTTP")]
    _, no_proxy = found.get("no_proxy", ("", ""))
    direct = {host.strip().lower() for host in no_proxy.split(",")}
    caught = [host for host in LOOPBACK if not {host, "*"} & direct]
    if not caught:
        return [Finding("ok", f"{' and '.join(taken)}, but not for {' and '.join(LOOPBACK)}")]
    through = f"{' and '.join(taken)} leads curl and many clients to {' and '.join(caught)}, too; our servers ignore it"
    return [Finding("note", through, "export no_proxy=localhost,127.0.0.1,::1")]


def variable_findings(environment: Mapping[str, str]) -> list[Finding]:
    """A line for each variable with our prefix that nothing reads."""
    ours = sorted(name for name in environment if name.upper().startswith(PREFIX))
    read = [name for name in ours if name.upper() in SETTINGS or name in OTHERS]
    unread = [name for name in ours if name not in read and not is_service_variable(name, environment[name])]
    if unread:
        return [_unread(name) for name in unread]
    return [Finding("ok", f"read: {', '.join(read)}" if read else "none is set")]


def _unread(name: str) -> Finding:
    known = [each.removeprefix(PREFIX) for each in sorted(SETTINGS | OTHERS)]
    close = get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=CLOSE)
    if close:
        return Finding("problem", f"nothing reads {name}", f"did you mean {PREFIX}{close[0]}?")
    return Finding("note", f"nothing reads {name}", "unset it, or see the settings in --help")
