"""Every HTTP shape, and the way between it and the nouns of core.py.

Knows which status an error code has, and no server: bytes come in and go out. Imported by client, worker and balancer
(and by the command line, which prints results as the server would).
"""

from qwen_aio.core import Result
from qwen_aio.wire.result import RunResponse


def result_to_json(result: Result) -> str:
    """The reply of `POST /v1/run`, on one line."""
    return RunResponse.from_core(result).model_dump_json()
