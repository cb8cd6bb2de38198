"""qwen_aio: one small chat model on the CPU, many tasks at once."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_aio.client.async_client import AsyncClient
    from qwen_aio.client.sync_client import Client
    from qwen_aio.core import Message, Request, SamplingWish

__all__ = ["AsyncClient", "Client", "Message", "Request", "SamplingWish", "__version__"]
__version__ = "0.4.0"

# CPU only: set before anything can import torch, so that a GPU changes nothing.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# aiohttp opens this file when it is imported, and fails where it cannot; our keys are for no log.
os.environ.pop("SSLKEYLOGFILE", None)

# Imported when they are used: the command line starts without an HTTP client.
_PUBLIC = {
    "AsyncClient": "qwen_aio.client.async_client",
    "Client": "qwen_aio.client.sync_client",
    "Message": "qwen_aio.core",
    "Request": "qwen_aio.core",
    "SamplingWish": "qwen_aio.core",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
