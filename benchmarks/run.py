"""How long one request takes, from a second process over HTTP, with the bundled model or the one in DIR.

    python -m benchmarks.run [--url http://127.0.0.1:7861 | --model DIR] [--short]

Decisions on texts of about 10 and 200 characters, answers of 32 tokens, each one at a time and eight at once. The
client's clock: from sending to the last byte. Medians and quartiles. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import aiohttp

from benchmarks.servers import last_line, started

TEXT_10 = "快递太慢了,很差评!"
TEXT_200 = (
    "刚收到货,包装完好,物流也算快,第二天就到了楼下的驿站。不过打开以后发现颜色和图片不太一样,图片上是浅蓝,实物偏灰,在灯下看更明显。"
    "做工还行,线头不多,大小合适,穿着也舒服,就是这个颜色让我有点小失望。问了客服,客服说是光线问题,让我在自然光下再看看,我看了,还是灰的。"
    "考虑到价格不贵,就不退了,但是希望店家把图片换成真实的,不然后面的人还会失望。总的来说,一般吧,不算差,也谈不上好。"
)


async def ask(session: aiohttp.ClientSession, body: Mapping[str, object]) -> float:
    """Milliseconds of one request, as its caller sees it."""
    started = time.perf_counter()
    async with session.post("/v1/run", json=body) as response:
        response.raise_for_status()
        await response.read()
    return (time.perf_counter() - started) * 1000


async def measure(
    session: aiohttp.ClientSession, body: dict[str, object], *, clients: int, rounds: int
) -> dict[str, object]:
    """`rounds` requests by each of `clients` callers, who ask again as soon as they have their answer."""

    async def caller(number: int) -> list[float]:
        # A different last character for each: equal texts would be answered from the prefix cache.
        return [await ask(session, {**body, "text": f"{body['text']}{number}.{turn}"}) for turn in range(rounds)]

    started = time.perf_counter()
    times = sorted(ms for part in await asyncio.gather(*(caller(n) for n in range(clients))) for ms in part)
    elapsed_s = time.perf_counter() - started
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "p50_ms": round(middle, 1),
        "quartiles_ms": [round(low, 1), round(high, 1)],
        "per_second": round(len(times) / elapsed_s, 1),
        "n": len(times),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    rounds = 5 if arguments.short else 40
    bodies: dict[str, dict[str, object]] = {
        "decision, 10 characters": {"text": TEXT_10, "mode": "sentiment"},
        "decision, 200 characters": {"text": TEXT_200, "mode": "sentiment"},
        "answer, 32 tokens": {"text": TEXT_10, "mode": "chat", "max_tokens": 32, "seed": 1},
        "decision and answer": {"text": TEXT_10, "mode": "auto", "reply": True, "max_tokens": 32, "seed": 1},
    }
    results: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        url = arguments.url or await stack.enter_async_context(started("worker", "--model", arguments.model))
        session = await stack.enter_async_context(aiohttp.ClientSession(base_url=url, trust_env=False))
        await measure(session, bodies["decision, 10 characters"], clients=1, rounds=5)  # warm
        for clients in (1, 8):
            for name, body in bodies.items():
                result = await measure(session, body, clients=clients, rounds=rounds)
                results[f"{name}, {clients} at a time"] = result
                print(f"{name:26s} {clients} at a time: {result}")
    print(last_line(results))


if __name__ == "__main__":
    asyncio.run(main())
