"""`GET /v1/models`, and whom a request means by `model`: the chat model or a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from qwen_aio.core import Capabilities
from qwen_aio.errors import UnknownModel
from qwen_aio.routing import DEFAULT_TASK
from qwen_aio.wire.shape import Answered

OWNER = "qwen-aio"


@dataclass(frozen=True)
class Addressee:
    """The chat model, or a task that is addressed as a model."""

    id: str  # as clients name it
    task: str
    is_chat_model: bool = False


def addressees(capabilities: Capabilities) -> list[Addressee]:
    """The chat model, if there is a task to lend its system turn; then decision tasks; then the others."""
    tasks = sorted(capabilities.tasks.values(), key=lambda task: (task.kind != "decision", task.name))
    found = [Addressee(f"{OWNER}/{task.name}", task.name) for task in tasks]
    chat = capabilities.tasks.get(DEFAULT_TASK)
    if chat is not None and chat.kind == "generation":
        found.insert(0, Addressee(capabilities.model, chat.name, is_chat_model=True))
    return found


def addressed(model: str | None, capabilities: Capabilities) -> Addressee:
    """Whom `model` names; None is the chat model. Raises UnknownModel."""
    for each in addressees(capabilities):
        if each.id == model or (model is None and each.is_chat_model):
            return each
    problem = f"the model {model!r} does not exist" if model else "there is no task chat, so a model must be named"
    raise UnknownModel(f"{problem}; GET /v1/models lists those that do", param="model")


class ModelShape(Answered):
    """One model, or a task in its place."""

    id: str
    """For `model`."""
    object: Literal["model"] = "model"
    """Always this."""
    created: int
    """When the server started, seconds since 1970."""
    owned_by: str = OWNER
    """Always this."""


class ModelsResponse(Answered):
    """All that a request can name."""

    object: Literal["list"] = "list"
    """Always this."""
    data: list[ModelShape]
    """The chat model, decision tasks, the other tasks."""

    @classmethod
    def from_core(cls, capabilities: Capabilities, *, created: int) -> Self:
        """`created`: seconds since 1970."""
        return cls(data=[ModelShape(id=each.id, created=created) for each in addressees(capabilities)])
