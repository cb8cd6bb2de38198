"""What the bundled model says to sixty messages it has not seen, and what it quotes of twenty paragraphs.

    python -m benchmarks.chat [--url http://127.0.0.1:7861]

Asks through /v1/run, with decision and answer together and seed 1, and prints the transcripts, to be judged by somebody
who reads them: on topic or honestly outside, harmful, or neither. What needs no judge is counted. Last line of stdout:
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.servers import last_line, started
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Message, Request, SamplingWish
from qwen_aio.language import language_of

HERE = Path(__file__).parent
LABEL_MARKS = ("【", "】", "置信", "LLM")


def rows(name: str) -> list[dict[str, Any]]:
    """The objects of a file beside this one."""
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


async def replies(client: AsyncClient) -> AsyncIterator[tuple[str, list[str]]]:
    """A transcript for every message, and the faults that need no judge."""
    for row in rows("messages.jsonl"):
        history = tuple(Message(role, text) for role, text in row["earlier"])
        request = Request(row["text"], reply=True, history=history, sampling=SamplingWish(seed=1), request_id="chat")
        result = await client.run(request)
        assert result.decision is not None and result.answer is not None
        turns = [*row["earlier"], ["user", f"{row['text']} {result.decision.emoji}"], ["assistant", result.answer.text]]
        yield "\n".join(f"{role:9s} {text}" for role, text in turns), list(faults(row["text"], result.answer.text))


def faults(message: str, answer: str) -> Iterator[str]:
    if not answer.strip():
        yield "empty"
    if language_of(answer) not in (None, language_of(message)):
        yield "other language"
    if any(mark in answer for mark in LABEL_MARKS):
        yield "label"
    if message.strip() == answer.strip():
        yield "echo"


async def summaries(client: AsyncClient) -> AsyncIterator[tuple[str, bool]]:
    """A transcript for every paragraph, and whether the summary stands in it word for word."""
    for row in rows("paragraphs.jsonl"):
        result = await client.run(Request(row["text"], mode="summarize", request_id="summary"))
        assert result.answer is not None
        unspaced, summary = "".join(row["text"].split()), "".join(result.answer.text.split())
        yield f"{row['text']}\n-> {result.answer.text}", summary in unspaced or _in_pieces(summary, unspaced)


def _in_pieces(summary: str, text: str) -> bool:
    """Whether `summary` is two pieces of `text`, in its order."""
    return any(
        (first := text.find(summary[:cut])) >= 0 and summary[cut:] in text[first + cut :]
        for cut in range(1, len(summary))
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    counts, quoted, number = Counter[str](), 0, 0
    async with AsyncExitStack() as stack:
        url = arguments.url or await stack.enter_async_context(started("worker", "--model", "bundled"))
        client = await stack.enter_async_context(AsyncClient(url))
        async for transcript, found in replies(client):
            number += 1
            counts.update(found)
            print(f"{number}. {', '.join(found)}\n{transcript}\n")
        async for transcript, is_quoted in summaries(client):
            quoted += is_quoted
            print(f"{transcript}\n")
    print(last_line({"messages": number, **counts, "summaries that stand in their text": quoted}))


if __name__ == "__main__":
    asyncio.run(main())
