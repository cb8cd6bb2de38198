"""`POST /tokenize`: the tokens of a prompt."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from qwen_aio.core import EngineRequest
from qwen_aio.errors import UnknownModel, UnknownTask
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.openapi.endpoint import Endpoint, ErrorKinds
from qwen_aio.serving.openapi.work_errors import WORK_ERRORS
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.wire.openai.chat import ChatRequest
from qwen_aio.wire.openai.completion import CompletionRequest
from qwen_aio.wire.openai.model import addressed
from qwen_aio.wire.openai.tokenize import TokenizeResponse, read_tokenize
from qwen_aio.wire.shape import JSON_MEDIA, read_object


def tokenize_endpoint(gate: AdmissionGate, *, allow_system_messages: bool, also: ErrorKinds) -> Endpoint:
    """`also`: errors besides those of every server."""
    return Endpoint(
        "/tokenize",
        TokenizeRoute(gate, allow_system_messages=allow_system_messages).tokenize,
        method="POST",
        name="tokenize",
        tag="OpenAI",
        summary="Count the tokens of the prompt that messages or a text become",
        description="As in vLLM. Computes nothing else.",
        reads=ChatRequest | CompletionRequest,
        answers=TokenizeResponse,
        errors=(*WORK_ERRORS, UnknownModel, UnknownTask, *also),
    )


class TokenizeRoute:
    """Reads what the routes for text read, and computes nothing."""

    def __init__(self, gate: AdmissionGate, *, allow_system_messages: bool) -> None:
        """`gate` opens with a Pipeline."""
        self._gate = gate
        self._allow_system_messages = allow_system_messages

    async def tokenize(self, http_request: HttpRequest) -> Response:
        """Raises QwenAioError."""
        if self._gate.refusal is not None:
            raise self._gate.refusal
        wanted = read_tokenize(read_object(await http_request.body()))
        pipeline = self._gate.service
        assert isinstance(pipeline, Pipeline)
        capabilities = pipeline.executor.capabilities()
        to = addressed(wanted.model, capabilities)
        request = wanted.to_core("", to, allow_system_messages=self._allow_system_messages)
        state = http_request.scope["state"]
        call = EngineRequest(
            state["request_id"],
            to.task,
            request.text,
            history=request.history,
            traceparent=state["traceparent"],
            rendering=request.rendering,
        )
        tokens = await pipeline.executor.tokenize(call)
        shape = TokenizeResponse(count=len(tokens), max_model_len=capabilities.context.tokens, tokens=tokens)
        return Response(shape.to_json(), media_type=JSON_MEDIA)
