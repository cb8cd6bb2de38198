"""What comes back: of the engine, up to Completion; then of one engine request, and of a request.

Plain, frozen data as in core.py, which says how it travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

FinishReason = Literal["stop", "length", "fixed", "extracted"]  # extracted: sentences of the user's text
SafetySource = Literal["words", "model"]
Confidence = Literal["高", "中", "低"]
NOTABLE = 0.005  # change of a probability


@dataclass(frozen=True)
class Usage:
    """Tokens of one engine request.

    Of the prompt as it came in, `cut_tokens` were not read and `cached_tokens` not computed again.
    """

    prompt_tokens: int = 0
    """Tokens of the prompt as it came in."""
    cached_tokens: int = 0
    """Those of the prompt that were not computed again."""
    completion_tokens: int = 0
    """Tokens of the answer; 0 for a decision."""
    cut_tokens: int = 0
    """Those of the prompt that did not fit the context."""


@dataclass(frozen=True)
class Timings:
    """Wall time. `prefill_ms` ends with the first token or score, `decode_ms` with the last."""

    queue_ms: float = 0.0
    """Waiting for the engine."""
    prefill_ms: float = 0.0
    """Until the first token or score."""
    decode_ms: float = 0.0
    """From there until the last token."""
    total_ms: float = 0.0
    """All of it."""


Costs = TypeVar("Costs", Usage, Timings)


def added_up(kind: type[Costs], parts: Sequence[Costs]) -> Costs:
    """`kind` with every field added up."""
    return kind(**{each.name: sum(getattr(part, each.name) for part in parts) for each in fields(kind)})


@dataclass(frozen=True)
class Truncation:
    """What did not fit into the context."""

    dropped_turns: int = 0
    truncated: bool = False


@dataclass(frozen=True)
class LabelScore:
    """Natural logarithm of the probability that the model continues with exactly this text."""

    text: str
    logprob: float
    num_tokens: int


@dataclass(frozen=True)
class Scores:
    """Scores of a prompt's possible continuations, in the order they were given."""

    labels: tuple[LabelScore, ...]
    usage: Usage
    timings: Timings
    truncation: Truncation = Truncation()


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, by the model alone: sampling does not count."""

    text: str  # bytes that are no whole character are written \xe4
    utf8: tuple[int, ...] | None  # None: a control token, which is no text
    logprob: float


@dataclass(frozen=True)
class SampledToken:
    """A token of an answer, and those that were most likely in its place."""

    token: TokenLogprob
    top: tuple[TokenLogprob, ...]  # best first
    offset: int  # characters of the answer before it


@dataclass(frozen=True)
class TextDelta:
    """The next piece of an answer's text: whole characters only, perhaps none yet.

    `token_ids` led to it: known between engine, worker and balancer. `index` counts the deltas
    a client gets, from 0. `logprobs` of its tokens: only where they are asked for.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    index: int = 0
    logprobs: tuple[SampledToken, ...] = ()


@dataclass(frozen=True)
class Completion:
    """The end of an answer, after its last TextDelta."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    truncation: Truncation = Truncation()


@dataclass(frozen=True)
class Safety:
    """Whether the writer or somebody near is in danger, as decided before the answer."""

    label: str
    """A label of the task `safety`."""
    probability: float | None
    """Of that label; null if the word rule alone decided."""
    source: SafetySource
    """What decided: the word rule or the model."""


@dataclass(frozen=True)
class Phrase:
    """A piece of a text, and what leaving it out does to the probability of a label."""

    text: str
    """As it stands there, with the marks behind it."""
    start: int
    """Characters of the text before it."""
    weight: float
    """Probability of the label, minus its probability without the phrase."""

    @property
    def is_notable(self) -> bool:
        """Whether leaving it out changes anything that is worth a word."""
        return abs(self.weight) >= NOTABLE

    @property
    def shown(self) -> str:
        """Without marks and white space around it."""
        letters = [at for at, letter in enumerate(self.text) if letter.isalnum()]
        return self.text[letters[0] : letters[-1] + 1] if letters else self.text.strip()


@dataclass(frozen=True)
class Explanation:
    """What moved a decision."""

    label: str
    """The most probable label, which the weights are about."""
    phrases: tuple[Phrase, ...]
    """The strongest first; none where the text is one phrase."""
    reason: str | None
    """A sentence about them."""
    usage: Usage
    """Tokens of all decisions it took."""
    total_ms: float
    """From the first to the last of them."""


@dataclass(frozen=True)
class Decision:
    """A decision, always well formed: computed from probabilities, not parsed out of text."""

    task: str
    label: str
    emotion: str  # the label's text, Chinese for every input
    emoji: str
    confidence: Confidence
    best_label: str  # the most probable one; `label` too, unless the decision abstained
    probability: float  # scores[best_label]
    scores: dict[str, float]  # label name -> probability; sums to 1 over the labels
    abstained: bool  # no label was clear: `label` is the neutral one, and `confidence` is 低
    label_mass: float  # probability the labels held together among all continuations
    text: str  # the fixed format
    merged: str  # head of the merged line
    usage: Usage
    timings: Timings
    truncation: Truncation = Truncation()
    calibrated: bool = False
    explanation: Explanation | None = None  # where one is asked for
    worker: str = ""
    model: str = ""

    @property
    def reason(self) -> str | None:
        """The explanation's sentence."""
        return self.explanation.reason if self.explanation else None


@dataclass(frozen=True)
class Answer:
    """A finished answer, with its own costs: it may come from another worker than the decision."""

    task: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    truncation: Truncation = Truncation()
    worker: str = ""
    model: str = ""
    safety: Safety | None = None  # None where no task checks
    logprobs: tuple[SampledToken, ...] = ()  # where a client asks for them, and not for a stream

    @property
    def merged_tail(self) -> str:
        """The end of the merged line, after the decision's head."""
        return f'→ "{self.text}"'


@dataclass(frozen=True)
class AnswerStart:
    """Before the first delta: what a worker that resumes the answer needs and does not find out again."""

    seed: int | None  # the one it is sampled with
    safety: Safety | None


# A decision is one Decision; an answer is AnswerStart, TextDelta*, Answer, or one Answer.
EngineEvent = Decision | AnswerStart | TextDelta | Answer


@dataclass(frozen=True)
class Result:
    """The outcome of one request: a decision, an answer or both."""

    request_id: str
    mode: str  # the task that was run
    route: str
    task_hash: str
    model: str
    worker: str
    decision: Decision | None = None
    answer: Answer | None = None
    total_ms: float = 0.0

    def with_logprobs(self, tokens: Sequence[SampledToken]) -> Result:
        """This result; its answer lists `tokens`, if there are any."""
        return replace(self, answer=replace(self.answer, logprobs=tuple(tokens))) if self.answer and tokens else self

    @property
    def merged_line(self) -> str:
        """Label and answer in one line; the one there is if only one was requested."""
        if self.decision is None:
            return self.answer.text if self.answer else ""
        return self.decision.merged + (self.answer.merged_tail if self.answer else "")


@dataclass(frozen=True)
class Decided:
    """Event: the decision; the answer, if any, follows."""

    decision: Decision


@dataclass(frozen=True)
class Explained:
    """Event: what moved the decision, after the answer, if any."""

    explanation: Explanation


@dataclass(frozen=True)
class Done:
    """Event: the end of a request. Nothing follows."""

    result: Result


Event = Decided | TextDelta | Explained | Done
