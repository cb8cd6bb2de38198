"""qwen_aio: one small chat model on the CPU, many tasks at once."""

import os

__version__ = "0.4.0"

# CPU only: set before anything can import torch, so that a GPU changes nothing.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# aiohttp opens this file when it is imported, and fails where it cannot; our keys are for no log.
os.environ.pop("SSLKEYLOGFILE", None)
