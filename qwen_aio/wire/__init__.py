"""Requests, results, events and errors as they travel over HTTP, and as nouns of the house.

Knows the status of every error code, and no server. The command line prints results as a server
sends them. The state of a worker is in status/record.py, that of a balancer in its snapshot.py.
"""

from qwen_aio.result import Result
from qwen_aio.wire.result import RunResponse


def result_to_json(result: Result) -> str:
    """The reply of `POST /v1/run`, on one line."""
    return RunResponse.from_core(result).model_dump_json()
