"""What is asked when: schedules for the load generator. Knows no HTTP.

Arrivals and lengths can follow the Azure trace of 2023 (TIMESTAMP, ContextTokens, GeneratedTokens), scaled down: its
gaps to the wanted rate, its lengths to what a small model is asked.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from random import Random

SENTENCES = (
    "快递太慢了,差评!",
    "客服态度超好,必须点赞!",
    "颜色和图片不太一样,有点小失望。",
    "包装完好,第二天就到了。",
    "做工一般,价格倒是不贵。",
    "用了一个月,没有出过问题。",
)
TRACE = "AzureLLMInferenceTrace_conv.csv"
SHARE_OF_DECISIONS = 0.7
CONTEXT_SCALE = 0.25  # characters for a token of the trace
ANSWER_SCALE = 0.25  # tokens for a token of the trace
LONGEST_TEXT, LONGEST_ANSWER = 400, 64


@dataclass(frozen=True)
class Shot:
    """One request of an open loop: it leaves at `at_s` whether or not the others are back."""

    at_s: float
    kind: str  # what its latency is reported under
    body: dict[str, object]


def to_json(shots: Sequence[Shot]) -> str:
    """For the generator's standard input."""
    return json.dumps([asdict(shot) for shot in shots], ensure_ascii=False)


def from_json(text: str) -> list[Shot]:
    return [Shot(**fields) for fields in json.loads(text)]


def from_trace(folder: Path, *, rate_per_s: float, seconds: float, seed: int) -> list[Shot]:
    """Decisions and answers as bursty as the trace, at `rate_per_s` on average."""
    rows = list(_rows(folder / TRACE))
    random = Random(seed)
    start = random.randrange(len(rows) - 1)
    wanted = round(rate_per_s * seconds)
    chosen = [rows[(start + number) % len(rows)] for number in range(wanted)]
    gaps = [gap for gap, *_ in chosen]
    scale = seconds / sum(gaps)
    at_s, shots = 0.0, []
    for gap, context, generated in chosen:
        at_s += gap * scale
        is_decision = random.random() < SHARE_OF_DECISIONS
        body = decision(random, context * CONTEXT_SCALE) if is_decision else answer(random, context, generated)
        shots.append(Shot(at_s, "decision" if is_decision else "answer", body))
    return shots


def poisson(bodies: Sequence[tuple[str, dict[str, object]]], *, rate_per_s: float, seed: int) -> list[Shot]:
    """`bodies` (kind, body) with independent arrivals."""
    random = Random(seed)
    at_s, shots = 0.0, []
    for kind, body in bodies:
        at_s += random.expovariate(rate_per_s)
        shots.append(Shot(at_s, kind, body))
    return shots


def decision(random: Random, num_chars: float) -> dict[str, object]:
    """A decision on a text of about so many characters."""
    return {"text": text(random, num_chars), "mode": "sentiment"}


def answer(random: Random, context: float, generated: float) -> dict[str, object]:
    """An answer as long as the trace says, scaled."""
    max_tokens = round(min(max(generated * ANSWER_SCALE, 4), LONGEST_ANSWER))
    return {
        "text": text(random, context * CONTEXT_SCALE),
        "mode": "chat",
        "max_tokens": max_tokens,
        "seed": random.randrange(2**31),
    }


def text(random: Random, num_chars: float) -> str:
    """Sentences up to about that length; two are hardly ever the same, so no cache answers for the model."""
    length = round(min(max(num_chars, 8), LONGEST_TEXT))
    parts = [f"{random.randrange(1000)}."]
    while sum(map(len, parts)) < length:
        parts.append(random.choice(SENTENCES))
    return "".join(parts)[:length]


def _rows(path: Path) -> Iterator[tuple[float, int, int]]:
    """Seconds since the row before, context tokens, generated tokens."""
    before: datetime | None = None
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            now = datetime.fromisoformat(row["TIMESTAMP"][:26])
            gap = (now - before).total_seconds() if before else 0.0
            yield max(gap, 0.0), int(row["ContextTokens"]), int(row["GeneratedTokens"])
            before = now
