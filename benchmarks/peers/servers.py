"""Those who answer over HTTP: our worker, llama-server, transformers serve. Each by its own best flags.

llama-server: flash attention and no second cache in RAM, each slot keeps the prompt's fixed part, probabilities of
the next token in the reply. transformers serve: bf16 where the CPU has products of it (four times as fast
then, for a whole prompt), else fp32.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.process import THREADS
from benchmarks.peers.texts import Chat, Texts
from benchmarks.servers import ROOT

Ask = tuple[str, dict[str, Any]]  # path and JSON body
SLOT_TOKENS = 512  # of one llama-server slot
NUM_PROBABILITIES = 10  # of the most probable next tokens: a trained model's labels are among them
LLAMA_BYTES_PER_TOKEN = 24 * 2 * 1024 * 2  # layers, keys and values, width, f16
KV_MB = 512  # our --kv-mb


@dataclass(frozen=True)
class Api:
    """How one kind of server is started and asked."""

    command: tuple[str | Path, ...]  # the port comes behind it
    ready_path: str
    decision: Callable[[str], Ask]
    chat: Callable[[Chat], Ask] | None = None  # streamed; None: not asked here
    kv_mb: float = 0  # a block that it reserves for keys and values


@asynccontextmanager
async def worker(model_dir: Path, *, precision: str, prefix: tuple[str, ...]) -> AsyncIterator[Api]:
    """Our worker, its command behind `prefix`; its status goes to a folder of its own."""
    with tempfile.TemporaryDirectory() as status_dir:
        flags = ("--model", model_dir, "--precision", precision, "--threads", str(THREADS), "--kv-mb", str(KV_MB))
        forced = ("--force-precision",) if precision == "int4" else ()  # random weights say nothing of it
        quiet = ("--golden", "off", "--status-dir", status_dir, "--log-level", "warning")
        yield Api(
            (*prefix, sys.executable, ROOT / "app.py", "--mode", "worker", *flags, *forced, *quiet),
            "/readyz",
            lambda text: ("/v1/run", {"text": text, "mode": "sentiment"}),
            lambda chat: (
                "/v1/run",
                {"text": chat.text, "mode": "chat", "max_tokens": chat.max_tokens, "seed": 1, "stream": True},
            ),
            KV_MB,
        )


def llama_server(peers: Path, model: Path, texts: Texts, *, slots: int) -> Api:
    """llama-server with so many slots."""
    flags = ("-t", THREADS, "-tb", THREADS, "-np", slots, "-c", SLOT_TOKENS * slots, "-fa", "on", "--cache-ram", 0)

    def decision(text: str) -> Ask:
        read = {"n_predict": 1, "n_probs": NUM_PROBABILITIES, "temperature": 0}
        return "/completion", {"prompt": texts.decision_prompt(text), "cache_prompt": True, **read}

    def chat(chat: Chat) -> Ask:
        endless = {"n_predict": chat.max_tokens, "ignore_eos": True, "seed": 1, "stream": True}
        return "/completion", {"prompt": texts.chat_prompt(chat.text), "cache_prompt": True, **endless}

    command: tuple[str | Path, ...] = (peers / "llama.cpp" / "bin" / "llama-server", "-m", model, *map(str, flags))
    return Api(command, "/health", decision, chat, SLOT_TOKENS * slots * LLAMA_BYTES_PER_TOKEN / 2**20)


def quoting_server(peers: Path, model: Path, texts: Texts, *, has_lookup: bool) -> Api:
    """llama-server for one reader; its lookup matches 2 tokens and guesses 12 (its defaults, 12 and 48, miss)."""
    api = llama_server(peers, model, texts, slots=1)
    lookup = ("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "2", "--spec-ngram-simple-size-m", "12")
    return replace(api, command=(*api.command, *(lookup if has_lookup else ())))


def transformers_serve(peers: Path, model: Path, texts: Texts) -> Api:
    """/v1/systemone asks a question of its own making; ours goes into its instructions."""
    question = {
        "type": "choice",
        "instructions": texts.decision_prompt("").split("\n")[1].removesuffix("<|im_end|>"),
        "criteria": {label.text: None for label in texts.sentiment.labels},
    }
    dtype = "bfloat16" if _has_bf16_products() else "float32"
    flags = ("--device", "cpu", "--dtype", dtype, "--log-level", "error")
    return Api(
        (peers / "transformers" / "bin" / "transformers", "serve", model, *flags),
        "/health",
        lambda text: ("/v1/systemone", {"model": str(model), "state": text, "questions": {"sentiment": question}}),
    )


def _has_bf16_products() -> bool:
    words = Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in words or "amx_bf16" in words
