"""Every HTTP shape, and its conversion from and to the nouns of core.py.

Knows the status of every error code, and no server: bytes in, bytes out. Imported by client, worker
and balancer, and by the command line, which prints results as the server sends them.
"""

from qwen_aio.result import Result
from qwen_aio.wire.result import RunResponse


def result_to_json(result: Result) -> str:
    """The reply of `POST /v1/run`, on one line."""
    return RunResponse.from_core(result).model_dump_json()
