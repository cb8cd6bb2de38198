"""The twenty conversations of the model card, held through /v1/run and printed as Markdown.

    python -m benchmarks.conversations [--url http://127.0.0.1:7861]

What the people say was written down once; the model says the answers, with decision and answer together and seed 1.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

from benchmarks.servers import started
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Message, Request, SamplingWish

CONVERSATIONS = (
    ("你好", "你是谁?", "谢谢,再见"),
    ("快递太慢了,差评!", "那我该怎么办?"),
    ("客服态度超好,必须点赞!",),
    ("这破手机,充一次电只能用3小时,气死我了!", "客服一直不回复"),
    ("刚收到货,包装完好,但颜色和图片不太一样,有点小失望", "好的,谢谢"),
    ("裙子质量很好,穿着也舒服,会推荐给朋友",),
    ("虽然物流慢了点,但是东西真的很不错",),
    ("酒店房间有烟味,隔音也差,一晚上没睡好",),
    ("外卖送到都凉了,面也坨了",),
    ("今天加班到十点,好累",),
    ("我考试通过了,太开心了!",),
    ("请问怎么退货?",),
    ("帮我写一首关于秋天的诗",),
    ("Hello!", "What can you do?"),
    ("The delivery took three weeks, I am so annoyed.", "What should I do now?"),
    ("I love these headphones, the sound is amazing!",),
    ("The room was clean, but the staff were rude.",),
    ("The battery of my new watch dies after half a day.", "They don't answer my emails."),
    ("I am stressed about my exams.",),
    ("What is the capital of France?",),
)


async def hold(client: AsyncClient, said: tuple[str, ...]) -> list[str]:
    """One conversation, a line of Markdown a message."""
    history: tuple[Message, ...] = ()
    lines = []
    for text in said:
        request = Request(text, reply=True, history=history, sampling=SamplingWish(seed=1), request_id="card")
        result = await client.run(request)
        assert result.decision is not None and result.answer is not None
        lines += [f"> **{text}** {result.decision.emoji}  ", f"> {result.answer.text}  "]
        history += (Message("user", text), Message("assistant", result.answer.text))
    return lines


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    async with AsyncExitStack() as stack:
        url = arguments.url or await stack.enter_async_context(started("worker", "--model", "bundled"))
        client = await stack.enter_async_context(AsyncClient(url))
        for number, said in enumerate(CONVERSATIONS, 1):
            print(f"{number}.", *await hold(client, said), sep="\n", end="\n\n")


if __name__ == "__main__":
    asyncio.run(main())
