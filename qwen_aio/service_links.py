"""Kubernetes' service links: variables in every pod, one of which may have the name of a setting.

A service named qwen-aio gives QWEN_AIO_SERVICE_HOST, QWEN_AIO_PORT_8000_TCP and others, none of
them a setting, and QWEN_AIO_PORT=tcp://10.0.0.1:8000. Docker's old --link does the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address
from urllib.parse import urlsplit

SERVICE_VARIABLE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
logger = logging.getLogger(__name__)


def drop_service_links(environment: MutableMapping[str, str], variables: Iterable[str]) -> None:
    """Remove the `variables` that are links, also for child processes, and warn."""
    for name in variables:
        value = environment.get(name, "")
        if _is_link(value):
            del environment[name]
            service = name.removesuffix("_PORT").lower().replace("_", "-")
            logger.warning(
                f"{name}={value} is ignored: it is not a setting but Kubernetes' link to a service named {service}; "
                "enableServiceLinks: false in the pod's spec turns these off"
            )


def is_service_variable(name: str, value: str) -> bool:
    """Whether this is one of the variables that Kubernetes or Docker makes for a service."""
    return bool(SERVICE_VARIABLE.fullmatch(name)) or (name.endswith("_PORT") and _is_link(value))


def _is_link(value: str) -> bool:
    """Whether `value` is protocol://ADDRESS:PORT, spelled as Kubernetes does."""
    try:
        parts = urlsplit(value)
        address, port = ip_address(parts.hostname or ""), parts.port or 0
    except ValueError:
        return False
    host = f"[{address}]" if address.version == 6 else str(address)
    return parts.scheme in ("tcp", "udp", "sctp") and port > 0 and value == f"{parts.scheme}://{host}:{port}"
