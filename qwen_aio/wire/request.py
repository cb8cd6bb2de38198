"""`POST /v1/run`: bytes -> RunRequest -> the requests of core.py."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from qwen_aio.bounds import MAX_STOPS, MAX_TIMEOUT_S, SamplingNumbers, Seed, StopString
from qwen_aio.core import Message, Overflow, Rendering, Request, Role, SamplingWish
from qwen_aio.errors import InvalidRequest
from qwen_aio.visible import check_visible
from qwen_aio.wire.shape import Sent

MAX_BODY_BYTES = 1_000_000
MAX_TEXTS = 256
MAX_TASKS = 16
MAX_HISTORY = 1000  # messages


class HistoryMessage(Sent):
    """One earlier turn."""

    role: Role
    """`user` begins, then they take turns."""
    content: str
    """The text of the turn."""


History = Annotated[list[HistoryMessage], Field(max_length=MAX_HISTORY, default_factory=list)]


class SamplingFields(Sent, SamplingNumbers):
    """How an answer is sampled, and how long a client waits: None means as the task says."""

    stop: Annotated[list[StopString], Field(min_length=1, max_length=MAX_STOPS)] | None = None
    """The answer ends before any of these."""
    seed: Seed | None = None
    """The same seed, request and server give the same answer."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = None
    """How long the client waits; default: that of the task, as `GET /v1/tasks` says."""

    def wish(self) -> SamplingWish:
        """The sampling that the client asks for."""
        fields = {name: getattr(self, name) for name in _WISHES}
        return SamplingWish(**fields | {"stop": None if self.stop is None else tuple(self.stop)})


_WISHES = tuple(SamplingWish.__dataclass_fields__)


TaskName = Annotated[str, Field(min_length=1, max_length=64)]


HISTORY_EXAMPLE: list[JsonValue] = [
    {"role": "user", "content": "今天天气怎么样?"},
    {"role": "assistant", "content": "今天是晴天。"},
]


class RunRequest(SamplingFields):
    """`POST /v1/run`: one `text`, many `texts` that are answered in order, or one `text` for several `tasks`."""

    # What the checks below say, as far as JSON Schema can: the turns of a history cannot be written in it.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
            "dependentSchemas": {
                "texts": {"properties": {"stream": {"const": False}, "history": {"maxItems": 0}}},
                "tasks": {
                    "required": ["text"],
                    "properties": {
                        "mode": False,
                        "reply": {"const": False},
                        "stream": {"const": False},
                        "history": {"maxItems": 0},
                    },
                },
            },
            "examples": [
                {"text": "快递太慢了,差评!"},
                {"text": "快递太慢了,差评!", "mode": "sentiment", "reply": True, "max_tokens": 60},
                {"text": "那明天呢?", "mode": "chat", "stream": True, "history": HISTORY_EXAMPLE},
                {"texts": ["很好用", "太失望了"], "mode": "sentiment"},
                {"text": "很好用,就是有点贵", "tasks": ["sentiment", "safety"]},
            ],
        }
    )

    text: str | None = None
    """One text with at least one visible character; or `texts`."""
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    """Texts that are answered in order; or `text`."""
    mode: TaskName = "auto"
    """A task, or `auto`: the rules of the tasks choose one."""
    tasks: (
        Annotated[
            list[Annotated[TaskName, Field(json_schema_extra={"not": {"const": "auto"}})]],
            Field(
                min_length=1,
                max_length=MAX_TASKS,
                json_schema_extra={"uniqueItems": True},
            ),
        ]
        | None
    ) = None
    """Tasks that are run side by side on `text`, each named once; without `mode`, `reply`, `history` and `stream`."""
    reply: bool = False
    """Run the companion of the task, too: a decision gets an answer, an answer a decision."""
    history: History
    """Earlier turns, in pairs of `user` and `assistant`."""
    stream: bool = False
    """Answer with server-sent events; for one text."""
    explain: bool = False
    """Name the phrases that moved the decision, found by leaving each out; costs about three decisions."""
    on_overflow: Overflow = "cut"
    """What happens to a text that does not fit the context: it is cut, or refused."""

    @model_validator(mode="after")
    def _check_meaning(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise InvalidRequest("send either text (one string) or texts (a list of strings)", param="text")
        if self.texts is not None and (self.stream or self.history):
            raise InvalidRequest("stream and history belong to one text; send text instead of texts", param="texts")
        if self.tasks is not None:
            self._check_tasks(self.tasks)
        if self.text is not None:
            check_visible(self.text, param="text")
        for index, text in enumerate(self.texts or []):
            check_visible(text, param=f"texts.{index}")
        self._check_turns()
        return self

    def _check_tasks(self, tasks: list[str]) -> None:
        given = [name for name in ("texts", "reply", "history", "stream") if getattr(self, name)]
        given += ["mode"] if "mode" in self.model_fields_set else []
        if given:
            raise InvalidRequest(f"tasks are run side by side on one text, without {given[0]}", param=given[0])
        if "auto" in tasks or len(set(tasks)) < len(tasks):
            raise InvalidRequest("tasks names each task once, and not auto", param="tasks")

    def _check_turns(self) -> None:
        for index, message in enumerate(self.history):
            if message.role != ("user", "assistant")[index % 2]:
                where = f"history.{index}.role"
                raise InvalidRequest(f"{where}: user and assistant take turns, and user begins", param=where)
        if len(self.history) % 2:
            raise InvalidRequest("history ends with an answer; the new message goes into text", param="history")

    @classmethod
    def from_core(cls, request: Request, *, stream: bool) -> RunRequest:
        """Raises InvalidRequest."""
        others = {"stream": stream, "on_overflow": request.rendering.on_overflow}
        fields = asdict(request) | vars(request.sampling) | others
        del fields["sampling"]
        del fields["rendering"], fields["top_logprobs"], fields["json_schema"]  # these are OpenAI's routes'
        del fields["request_id"], fields["traceparent"]  # these travel as headers
        written = json.dumps({name: value for name, value in fields.items() if value is not None})
        return cls.read(written.encode())  # refuses here what the server would refuse

    def to_core(self, request_id: str, traceparent: str = "") -> tuple[Request, ...]:
        """One request per text, or per task."""
        history = tuple(Message(message.role, message.content) for message in self.history)
        texts = [self.text] if self.text is not None else self.texts or []
        one = Request(
            "",
            self.mode,
            self.reply,
            history,
            self.wish(),
            self.timeout_s,
            request_id,
            traceparent,
            Rendering(on_overflow=self.on_overflow),
            explain=self.explain,
        )
        return tuple(replace(one, text=text, mode=mode) for text in texts for mode in self.tasks or [self.mode])
