"""The nouns of the product: plain, frozen data that every room uses. What comes back: result.py.

Nothing here computes with tensors, reads files or knows HTTP. A request travels as

    Request --routing--> EngineRequest --tasks.template--> Prompt
    --engine--> Scores | TextDelta*, Completion
    --tasks.parse--> EngineEvent* --serving.pipeline--> Event*, Result

Durations are milliseconds (`_ms`) or seconds (`_s`); probabilities lie in 0..1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from qwen_aio.result import Event, Safety
from qwen_aio.safeguards import Calibration, OpeningCheck, SafetyPolicy

TaskKind = Literal["decision", "generation"]
Role = Literal["user", "assistant"]
Rounded = Literal["int8", "int4"]  # precisions of the engine for Qwen, besides fp32
Precision = Literal["fp32", "int8", "int4", "bf16"]  # of weights
PromptStyle = Literal["task", "chat", "completion"]
Overflow = Literal["cut", "error"]
Method = Literal["generate", "extract", "auto"]  # auto: extract with the bundled model


# ---- what a task is ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. `temperature` 0 is greedy; `top_k` 0, `top_p` 1: no filter."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 40
    repetition_penalty: float = 1.1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0  # OpenAI's, as the next: of the answer's tokens, without the prompt's
    frequency_penalty: float = 0.0

    def override(self, wish: SamplingWish) -> Sampling:
        """The values of `wish`, these where it has None."""
        return replace(self, **{name: value for name, value in vars(wish).items() if value is not None})


@dataclass(frozen=True)
class SamplingWish:
    """What one request asks for; None means as the task says."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True)
class Label:
    """One outcome of a decision: `name` for programs, `text` for the model, `emoji` for people."""

    name: str
    text: str
    emoji: str


@dataclass(frozen=True)
class Rule:
    """One routing rule of a task: all limits must hold, and one word or pattern if any is listed.

    A rule with a `reply` answers without the model.
    """

    task: str
    name: str
    priority: int  # the lowest is tried first
    words: tuple[str, ...] = ()  # plain substrings, compared without case
    patterns: tuple[str, ...] = ()  # regular expressions, searched without case
    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None  # a CJK character counts as one word
    max_words: int | None = None
    reply: str | None = None


@dataclass(frozen=True)
class GoldenCase:
    """A text whose outcome must not change; in a generation task, `answer` is the text to score."""

    text: str
    answer: str | None = None


@dataclass(frozen=True)
class Task:
    """A folder in `prompts/`, validated. `hash` covers the prompt and how its scores are read."""

    name: str
    kind: TaskKind
    title: dict[str, str]  # language code -> name shown on the page
    template: str  # prompt.j2, with the blocks system / user / answer
    hash: str
    labels: tuple[Label, ...] = ()
    high: float = 0.85  # probability from which confidence is 高
    medium: float = 0.6  # ... from which it is 中
    neutral: str | None = None  # label given when no label is clear
    neutral_below: float = 0.0  # ... that is, when the best probability stays below this
    text_format: str = ""  # the fixed format, with {label} and {confidence}
    merged_format: str = ""  # the head of the merged line, with {emoji}, {label} and {confidence}
    focus_words: tuple[str, ...] = ()
    companion: str | None = None  # task of the other kind that `reply` runs as well
    sampling: Sampling = Sampling()
    rules: tuple[Rule, ...] = ()
    golden: tuple[GoldenCase, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)  # by the model's hash
    safety: SafetyPolicy | None = None  # of the one task that checks messages before they are answered
    opening: OpeningCheck | None = None
    method: Method = "generate"  # "extract": the answer is made of sentences of the text

    def label(self, name: str) -> Label:
        """The label called `name`; KeyError if there is none."""
        return {label.name: label for label in self.labels}[name]


# ---- what the model sees -------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A control token, inserted by code as an id, e.g. `<|im_start|>`. Text never becomes one."""

    token: str


@dataclass(frozen=True)
class Text:
    """Text without control tokens. `can_cut`: may lose its middle to truncation."""

    text: str
    can_cut: bool = False


Segment = Control | Text
Segments = tuple[Segment, ...]


@dataclass(frozen=True)
class ContextLimits:
    """What fits, in tokens: prompt and answer together, and the answer alone."""

    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Prompt:
    """The input of the model: fixed head, earlier turns, this request.

    When the context is full the oldest turns go first, then the middle of the cuttable text. A
    prompt that `must_fit` is refused instead.
    """

    head: Segments  # the system part: the same for every request of the task
    turns: tuple[Segments, ...]  # earlier exchanges, oldest first; dropped whole
    body: Segments  # the user's block and the forced beginning of the answer
    must_fit: bool = False

    @property
    def segments(self) -> Segments:
        """All of it, in order."""
        return (*self.head, *(segment for turn in self.turns for segment in turn), *self.body)


# ---- what a person asks --------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One earlier turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Rendering:
    """How texts become a prompt. The defaults are those of `/v1/run`."""

    style: PromptStyle = "task"  # "chat": the messages as they are; "completion": the text alone, to be continued
    system: str | None = None  # of a chat: instead of the task's
    on_overflow: Overflow = "cut"  # what happens to texts that do not fit the context


@dataclass(frozen=True)
class Request:
    """A text and what to do with it. `mode` is "auto" or a task's name."""

    text: str
    mode: str = "auto"
    reply: bool = False
    history: tuple[Message, ...] = ()
    sampling: SamplingWish = SamplingWish()
    timeout_s: float | None = None
    request_id: str = ""
    traceparent: str = ""  # W3C trace context, checked; empty without one
    rendering: Rendering = Rendering()
    top_logprobs: int | None = None  # likely tokens listed beside each sampled one; None: no log probabilities
    json_schema: str | None = None  # as JSON: the answer keeps to it
    explain: bool = False  # the decision, if there is one
    decide: str | None = None  # a decision task in the companion's place; it goes before an answer


@dataclass(frozen=True)
class Route:
    """The task that serves a request, and why, e.g. `rule sentiment.words: 失望`, `mode chat`."""

    task: str
    reason: str


@dataclass(frozen=True)
class FixedAnswer:
    """An answer that a rule gives; the model is not asked. `safety` if it is the word rule of safety."""

    text: str
    safety: Safety | None = None


@dataclass(frozen=True)
class Plan:
    """What one request leads to: a decision, an answer, or both."""

    route: str
    main: Task  # named in the reply as `mode`
    decision: Task | None
    answer: Task | None
    fixed: FixedAnswer | None


@dataclass(frozen=True)
class DecidedLabel:
    """A label decided before, for the prompt of an answer."""

    task: str
    label: str


@dataclass(frozen=True)
class EngineRequest:
    """A decision or an answer that an engine computes. A request leads to one or two of them."""

    request_id: str
    task: str
    text: str
    history: tuple[Message, ...] = ()
    sampling: SamplingWish = SamplingWish()
    decided: DecidedLabel | None = None
    resume: tuple[int, ...] = ()  # token ids of the answer sent already: it continues after them
    timeout_s: float | None = None
    traceparent: str = ""
    rendering: Rendering = Rendering()
    top_logprobs: int | None = None
    json_schema: str | None = None
    explain: bool = False  # of a decision: with its explanation


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answers; `sha` is its hash, which calibrations are bound to."""

    name: str
    sha: str
    is_bundled: bool


@dataclass(frozen=True)
class Capabilities:
    """The tasks and limits of a server at the moment, its model and its worker."""

    tasks: Mapping[str, Task]
    context: ContextLimits
    model: str
    worker: str


class Service(Protocol):
    """Serves requests: a pipeline in this process, or a client of another server."""

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided?, TextDelta*, Explained?, Done. Closing it cancels the work. Raises QwenAioError."""

    async def capabilities(self) -> Capabilities:
        """What can be asked for. Raises QwenAioError."""
