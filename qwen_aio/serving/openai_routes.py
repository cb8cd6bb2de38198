"""OpenAI's routes: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

Each request becomes one of core.py, so gate, pipeline and executor are those of `/v1/run`. Knows
the gate and the shapes, no service.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from fastapi import Path
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from qwen_aio.errors import UnknownModel, UnknownTask
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.disconnect import while_connected
from qwen_aio.serving.meter import count, counted
from qwen_aio.serving.openapi.endpoint import Endpoint, ErrorKinds
from qwen_aio.serving.openapi.work_errors import CLOSED, WORK_ERRORS
from qwen_aio.serving.sse import StreamTimes, send_events
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.openai.chat import ChatChunk, ChatCompletion, ChatRequest
from qwen_aio.wire.openai.completion import CompletionRequest, TextCompletion
from qwen_aio.wire.openai.model import ModelShape, ModelsResponse, addressed
from qwen_aio.wire.openai.reply import ReplyObject, error_chunk
from qwen_aio.wire.openai.request import OpenAiRequest
from qwen_aio.wire.shape import JSON_MEDIA, Answered

TAG = "OpenAI"
STREAM = "With `stream` the answer is server-sent events without a name: chunks, then `[DONE]`, or an error at the end."


def openai_routes(
    gate: AdmissionGate, *, times: StreamTimes, allow_system_messages: bool, also: ErrorKinds
) -> list[Endpoint]:
    """The same on worker and balancer; `also`: errors besides those of every server."""
    text_route = partial(TextRoute, gate, times=times, allow_system_messages=allow_system_messages)
    errors = (*WORK_ERRORS, UnknownModel, *also)
    return [
        _text_endpoint(
            text_route(ChatRequest),
            name="chat_completions",
            path="/v1/chat/completions",
            summary="Answer a conversation",
            says="As at OpenAI.",
            answers=ChatCompletion,
            chunk=ChatChunk,
            errors=(*errors, UnknownTask),
        ),
        _text_endpoint(
            text_route(CompletionRequest),
            name="completions",
            path="/v1/completions",
            summary="Continue a text",
            says="For old clients.",
            answers=TextCompletion,
            chunk=TextCompletion,
            errors=errors,
        ),
        *_model_endpoints(ModelRoutes(gate), also),
    ]


def _text_endpoint(
    route: TextRoute,
    *,
    path: str,
    name: str,
    summary: str,
    says: str,
    answers: type[ReplyObject],
    chunk: type[ReplyObject],
    errors: ErrorKinds,
) -> Endpoint:
    return Endpoint(
        path,
        route,
        method="POST",
        name=name,
        tag=TAG,
        summary=summary,
        description=f"{says} A task can be addressed as a model. {STREAM}",
        reads=route.shape,
        answers=answers,
        events=[("", chunk), ("", ErrorResponse)],
        errors=errors,
    )


def _model_endpoints(models: ModelRoutes, also: ErrorKinds) -> list[Endpoint]:
    return [
        Endpoint(
            "/v1/models",
            models.all,
            name="models",
            tag=TAG,
            summary="List what `model` can name: the chat model and the tasks",
            answers=ModelsResponse,
            errors=(*CLOSED, *also),
        ),
        Endpoint(
            "/v1/models/{model:path}",
            models.one,
            name="model",
            tag=TAG,
            summary="Find one of them",
            answers=ModelShape,
            errors=(*CLOSED, UnknownModel, *also),
            parameters={"model": Annotated[str, Path(description="Its id.", examples=["qwen-aio/sentiment"])]},
        ),
    ]


class TextRoute:
    """An ASGI application of its own: only at this level does it see that a client disconnects."""

    def __init__(
        self, gate: AdmissionGate, shape: type[OpenAiRequest], *, times: StreamTimes, allow_system_messages: bool
    ) -> None:
        self._gate = gate
        self.shape = shape
        self._times = times
        self._allow_system_messages = allow_system_messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises QwenAioError while no status has been sent."""
        if self._gate.refusal is not None:
            raise self._gate.refusal
        wanted = self.shape.read(await HttpRequest(scope, receive).body())
        request_id = scope["state"]["request_id"]
        capabilities = await self._gate.capabilities()
        to = addressed(wanted.model, capabilities)
        request = wanted.to_core(request_id, to, allow_system_messages=self._allow_system_messages)
        reply = wanted.reply(request_id, to, capabilities, created=int(time.time()))
        if wanted.stream:
            events = self._gate.stream(request)
            frame = counted(scope, reply.frame)
            await send_events(events, scope, receive, send, frame=frame, failed=error_chunk, times=self._times)
            return
        result = await while_connected(receive, self._gate.run(request))
        count(scope, result)
        headers = {"Cache-Control": "no-store"}
        await Response(reply.whole(result), headers=headers, media_type=JSON_MEDIA)(scope, receive, send)


class ModelRoutes:
    """What can be named as `model`."""

    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate
        self._created = int(time.time())

    async def all(self, _: HttpRequest) -> Response:
        """The chat model and all tasks."""
        return _json(ModelsResponse.from_core(await self._gate.capabilities(), created=self._created))

    async def one(self, request: HttpRequest) -> Response:
        """The one in the path. Raises UnknownModel."""
        found = addressed(request.path_params["model"], await self._gate.capabilities())
        return _json(ModelShape(id=found.id, created=self._created))


def _json(shape: Answered) -> Response:
    return Response(shape.to_json(), media_type=JSON_MEDIA)
