"""How much of a step of the forward pass in torch is matrix products: steps beside the same products and nothing else.

    python -m benchmarks.floor --model DIR [--precision int8] [--threads 2] [--rounds 7]

The floor of a step is the time of its products with the weights (every layer's four and the output matrix's), with the
engine's own kernel, over as many rows; `with attention` adds the attention operator by itself, over as many rows and as
long contexts. Steps and floors take turns. Prefill: a prompt nobody has computed before, of 128 and 512 tokens, in
chunks as the engine cuts them, and its first token. Decode: 1 and 8 answers with nothing in common, whose drafting
ahead is off. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence as Series
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional

from benchmarks.servers import last_line
from qwen_aio.core import Control, Prompt, Sampling, Text
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import LoadedModel, load_model, make_engine
from qwen_aio.engine.model.attention import BLOCK_ROWS
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.model.linear import Linear
from qwen_aio.engine.requests import Generate
from qwen_aio.engine.weights.folder import Folder

CHUNK = 256  # rows of one step
LONG = 512  # tokens of a long prompt
STEPS = 12  # of decoding, in one round
CONTEXT = 60  # tokens of a chat before its answer
SLOTS = 2048  # of the floor's own memory of keys and values
WORDS = (" time", " place", " water", " house", " light", " paper", " stone", " river", " green")


@dataclass(frozen=True)
class Shares:
    """Seconds of every round: the whole, the products with the weights, and attention by itself."""

    whole: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    attention: list[float] = field(default_factory=list)

    def add(self, *, whole: float, products: float, attention: float) -> None:
        """One round more."""
        self.whole.append(whole)
        self.products.append(products)
        self.attention.append(attention)

    def told(self, name: str, tokens: int) -> str:
        """One line of the table."""
        rates = sorted(tokens / seconds for seconds in self.whole)
        return (
            f"{name:12s} {median(rates):7.1f} tokens/s ({rates[0]:.1f} .. {rates[-1]:.1f})"
            f"  whole {1e3 * median(self.whole):7.2f} ms  products {1e3 * median(self.products):7.2f} ms"
            f"  share {self.share:.2f}  with attention {self.share_with_attention:.2f}"
        )

    @property
    def share(self) -> float:
        return median(products / whole for products, whole in zip(self.products, self.whole, strict=True))

    @property
    def share_with_attention(self) -> float:
        rounds = zip(self.products, self.attention, self.whole, strict=True)
        return median((products + attention) / whole for products, attention, whole in rounds)


class Floor:
    """What a step cannot do without, over made-up rows."""

    def __init__(self, model: Qwen2) -> None:
        config = model.config
        hidden, heads = config.hidden_size, config.num_heads * config.head_dim
        self._output, self._hidden = model.output, hidden
        self._matrices: list[tuple[Linear, int]] = []
        for layer in model.layers:
            self._matrices += [(layer.qkv, hidden), (layer.attention_output, heads)]
            self._matrices += [(layer.gate_up, hidden), (layer.down, config.intermediate_size)]
        self._queries = torch.rand(1, config.num_heads, CHUNK, config.head_dim)
        self._slots = torch.rand(config.num_layers, 1, 2 * config.num_kv_heads, SLOTS, config.head_dim)

    @torch.inference_mode()
    def products_s(self, rows: int, *, wanted: int) -> float:
        """Seconds for `rows` rows, `wanted` of which are multiplied with the output matrix."""
        products = [*((linear, rows, width) for linear, width in self._matrices), (self._output, wanted, self._hidden)]
        inputs = {(rows, width): torch.rand(rows, width) * 2 - 1 for _, rows, width in products}
        started = time.perf_counter()
        for linear, num_rows, width in products:
            linear.product(inputs[num_rows, width])
        return time.perf_counter() - started

    @torch.inference_mode()
    def attention_s(self, looks: Series[tuple[int, int]]) -> float:
        """Seconds for so many (rows, length of what they see), one after another in memory."""
        started = time.perf_counter()
        for keys_values in self._slots:
            keys, values = keys_values.chunk(2, dim=1)
            at = 0
            for rows, length in looks:
                at = at if at + length <= SLOTS else 0
                seen = slice(at, at + length)
                functional.scaled_dot_product_attention(
                    self._queries[:, :, :rows], keys[:, :, seen], values[:, :, seen], enable_gqa=True
                )
                at += length if rows == 1 else 0  # blocks of one prompt see the same, answers each their own
        return time.perf_counter() - started


class Prompts:
    """Prompts of exactly so many tokens; each begins as no other does."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._tokenizer = loaded.tokenizer
        self._words = [word for word in WORDS if len(loaded.tokenizer.encode_text(word)) == 1]
        self._numbers = count()

    def make(self, num_tokens: int) -> Prompt:
        """`num_tokens` in all."""
        number, words = next(self._numbers), list[str]()
        while len(words) < num_tokens - 1:
            number, digit = divmod(number * 7919 + 13, len(self._words))
            words.append(self._words[digit])
        text = "".join(words)
        assert len(self._tokenizer.encode_text(text)) == num_tokens - 1
        return Prompt((), (), (Control("<|im_start|>"), Text(text)))


def use_memory(engine: Engine, prompts: Prompts, *, num_slots: int) -> None:
    """Write to all of it once, as a server has that runs for a while: the system gives it page by page."""
    for number in range(num_slots // LONG + 1):
        engine.add(str(number), Generate(prompts.make(LONG), Sampling(max_tokens=1)), arrived_s=engine.clock())
        while engine.has_work:
            engine.step()


def prefill(engine: Engine, floor: Floor, prompts: Prompts, *, tokens: int, rounds: int) -> Shares:
    """A fresh prompt and its first token, `rounds` times."""
    shares = Shares()
    looks = [
        (min(BLOCK_ROWS, tokens - start), min(start + BLOCK_ROWS, tokens)) for start in range(0, tokens, BLOCK_ROWS)
    ]
    for number in range(rounds + 1):
        work = Generate(prompts.make(tokens), Sampling(max_tokens=1, temperature=0))
        engine.add("one", work, arrived_s=engine.clock())
        started = time.perf_counter()
        while engine.has_work:
            engine.step()
        whole = time.perf_counter() - started
        chunks = [min(CHUNK, tokens - start) for start in range(0, tokens, CHUNK)]
        products = sum(floor.products_s(rows, wanted=0) for rows in chunks[:-1]) + floor.products_s(
            chunks[-1], wanted=1
        )
        if number:  # the first one warms up
            shares.add(whole=whole, products=products, attention=floor.attention_s(looks))
    return shares


def decode(engine: Engine, floor: Floor, prompts: Prompts, *, streams: int, rounds: int) -> Shares:
    """Steps of `streams` answers that go on together."""
    sampling = Sampling(max_tokens=(rounds + 2) * STEPS, temperature=0)
    for number in range(streams):
        engine.add(str(number), Generate(prompts.make(CONTEXT), sampling), arrived_s=engine.clock())
    shares = Shares()
    for number in range(rounds + 1):
        started = time.perf_counter()
        for _ in range(STEPS):
            engine.step()
        whole = (time.perf_counter() - started) / STEPS
        length = CONTEXT + number * STEPS + STEPS // 2
        products = sum(floor.products_s(streams, wanted=streams) for _ in range(STEPS)) / STEPS
        attention = sum(floor.attention_s([(1, length)] * streams) for _ in range(STEPS)) / STEPS
        if number:
            shares.add(whole=whole, products=products, attention=attention)
    assert engine.counters.running == streams, "an answer ended early"
    for number in range(streams):
        engine.abort(str(number))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", choices=("fp32", "int8"), default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    os.environ["QWEN_AIO_KERNEL"] = "torch"
    loaded = load_model(
        Folder.open(arguments.model), max_context=2048, threads=arguments.threads, precision=arguments.precision
    )
    limits = EngineLimits(max_batch_tokens=CHUNK, max_draft_rows=0)
    engine = make_engine(loaded, limits, threads=arguments.threads)
    assert isinstance(loaded.model, Qwen2)
    floor, prompts, summary = Floor(loaded.model), Prompts(loaded), {}
    use_memory(engine, prompts, num_slots=limits.num_slots(loaded.model.token_bytes))
    for kind, counts in (("prefill", (128, LONG)), ("decode", (1, 8))):
        for tokens in counts:
            if kind == "prefill":
                shares = prefill(engine, floor, prompts, tokens=tokens, rounds=arguments.rounds)
            else:
                shares = decode(engine, floor, prompts, streams=tokens, rounds=arguments.rounds)
            print(shares.told(f"{kind} {tokens}", tokens), flush=True)
            summary[f"{kind} {tokens}"] = {
                "tokens_per_s": round(tokens / median(shares.whole), 1),
                "share": round(shares.share, 3),
                "share_with_attention": round(shares.share_with_attention, 3),
            }
    print(last_line({"precision": arguments.precision, **summary}))


if __name__ == "__main__":
    main()
