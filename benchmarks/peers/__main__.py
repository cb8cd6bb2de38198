"""This engine beside llama.cpp, OpenVINO GenAI and transformers on this very machine. Linux only.

    scripts/install-peers
    python -m benchmarks.random_model --tokenizer DIR --out MODEL
    python -m benchmarks.peers --model MODEL --data DATA [--only decisions,prefill] [--sides ours-int8,llama-q8]

All sides in one call, two threads each. They take turns within every round, and whoever is not in turn is stopped.
MODEL is a random_model: speed does not depend on what the weights are. What engines do by themselves (prefill, decode,
quoting) is measured on a twin of it whose greedy text is laid down (talking_model.py), so that nobody stops early,
repeats himself, or says something else than the others. Cells: median (smallest to largest) of the rounds; behind it
how many times as much our first side shows. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.peers import in_process, over_http
from benchmarks.peers.bench import OURS, SIDES, Bench, Contestant
from benchmarks.peers.figures import Round, Table
from benchmarks.peers.models import prepare
from benchmarks.peers.texts import Texts
from benchmarks.peers.words import Words
from benchmarks.servers import ROOT, last_line

MEASURES = {
    "decisions": over_http.decisions,
    "prefill": in_process.prefill,
    "decode": in_process.decode,
    "quoting": in_process.quoting,
    "busy": over_http.busy,
    "memory": over_http.memory,
    "start": over_http.start,
}
NOTES = {
    "decisions": "Whole decisions over HTTP, texts of about 15 tokens behind the prompt of our sentiment task. "
    "`generate` writes 16 tokens in process, one request at a time.",
    "prefill": "Fresh prompts, tokens a second until the first token. llama.cpp: llama-bench.",
    "decode": "Greedy, prompts of 64 tokens, 48 more each, while all streams run. llama.cpp: llama-batched-bench.",
    "quoting": "One greedy answer of 152 tokens, four fifths of them quoted from the prompt in runs of 24 words. Ours "
    "decides by itself whether to guess; the peers without and with their own lookup. As laid down: share of tokens "
    "that are what the model must say.",
    "busy": "A decision over HTTP alone, and while eight readers stream answers shaped by the Azure trace.",
    "memory": "An idle server after its first decision.",
    "start": "A server from its command on; the model's files, and what it keeps of them, are in the system's cache.",
}
FULL_ROUNDS, FULL_SECONDS = 5, 3.0  # about twenty minutes in all
SHORT_ROUNDS, SHORT_SECONDS = 1, 1.5
ROUNDS_OF_MEMORY = 1  # it does not change


async def measured(name: str, bench: Bench, *, rounds: int) -> Table:
    """All rounds of one measure; the sides take turns, and another begins each round."""
    found: dict[str, list[Round]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        contestants = await MEASURES[name](bench, stack)
        for number in range(min(rounds, ROUNDS_OF_MEMORY) if name == "memory" else rounds):
            for side, contestant in _rotated(contestants, number):
                found[side].append(await contestant(number))
                print(
                    f"{time.strftime('%X')} {name} {number + 1}/{rounds} {side}: {_told(found[side][-1])}",
                    file=sys.stderr,
                )
    return Table(name, NOTES[name], {side: found[side] for side in contestants})


def _rotated(contestants: Mapping[str, Contestant], number: int) -> Sequence[tuple[str, Contestant]]:
    turns = list(contestants.items())
    first = number % max(len(turns), 1)
    return turns[first:] + turns[:first]


def _told(figures: Round) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _listed(known: Sequence[str], text: str) -> tuple[str, ...]:
    """Names with commas between them, in the order of `known`. Raises ArgumentTypeError."""
    unknown = sorted(set(text.split(",")) - set(known))
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return tuple(name for name in known if name in text.split(","))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a random_model")
    parser.add_argument("--data", type=Path, required=True, help="folder with dev rows and the Azure trace")
    parser.add_argument("--peers", type=Path, default=ROOT / "build" / "peers", help="[build/peers]")
    parser.add_argument("--only", type=lambda text: _listed(tuple(MEASURES), text), default=tuple(MEASURES))
    parser.add_argument("--sides", type=lambda text: _listed(SIDES, text), default=SIDES)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--short", action="store_true")
    return parser.parse_args()


async def main() -> None:
    arguments = _arguments()
    this = asyncio.current_task()
    assert this is not None
    for sign in (signal.SIGINT, signal.SIGTERM):  # whoever ends this ends what it has started and stopped
        asyncio.get_running_loop().add_signal_handler(sign, this.cancel)
    model, peers = arguments.model.resolve(), arguments.peers.resolve()
    words = Words.load(model)
    models = prepare(model, peers, words, arguments.sides)
    seconds = SHORT_SECONDS if arguments.short else FULL_SECONDS
    bench = Bench(model, peers, models, Texts.load(model, arguments.data), words, arguments.sides, seconds)
    rounds = arguments.rounds or (SHORT_ROUNDS if arguments.short else FULL_ROUNDS)
    ours = next(iter(bench.chosen(*OURS)), None)
    summary: dict[str, object] = {}
    for name in arguments.only:
        table = await measured(name, bench, rounds=rounds)
        print(table.markdown(ours), flush=True)
        summary[name] = table.summary()
    print(last_line(summary))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit("stopped")
