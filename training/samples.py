"""A few conversations to read in the log: numbers do not say whether an answer is any good."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qwen_aio.engine.text.tokenizer import Tokenizer
from training.model import Network
from training.rows import Encoder

CONVERSATIONS: tuple[tuple[str, tuple[str, ...], str | None], ...] = (  # task, what the user says, feeling
    ("chat", ("你好", "你是谁?", "谢谢,再见"), None),
    ("chat", ("快递太慢了,差评!",), "负面"),
    ("chat", ("客服态度超好,必须点赞!",), "正面"),
    ("chat", ("这破手机,充一次电只能用3小时,气死我了!", "那怎么办?"), "负面"),
    ("chat", ("刚收到货,包装完好,但颜色和图片不太一样,有点小失望",), "负面"),
    ("chat", ("最近工作压力好大,睡不着",), None),
    ("chat", ("法国的首都是哪里?",), None),
    ("chat", ("Hello!", "Who are you?", "Thanks, bye"), None),
    ("chat", ("The room was dirty and the staff were rude.",), "负面"),
    ("chat", ("I love this phone, the battery lasts for days",), "正面"),
    ("chat", ("What is the tallest mountain in the world?",), None),
    ("chat", ("I feel a bit sad today",), "负面"),
)


def print_samples(network: Network, tokenizer: Tokenizer, encoder: Encoder) -> None:
    """Greedy answers to a fixed list of messages, several turns where there are several."""
    for task, messages, feeling in CONVERSATIONS:
        texts: list[str] = []
        for message in messages:
            texts.append(message)
            texts.append(answer(network, tokenizer, encoder, task=task, texts=texts, feeling=feeling))
        print(f"  [{feeling or '-'}] " + " | ".join(text.replace("\n", "⏎") for text in texts), flush=True)


@torch.inference_mode()
def answer(
    network: Network,
    tokenizer: Tokenizer,
    encoder: Encoder,
    *,
    task: str,
    texts: Sequence[str],
    feeling: str | None = None,
    max_tokens: int = 80,
) -> str:
    """The greedy reply to `texts` (user, assistant, ..., user), computed anew for every token."""
    head = torch.tensor(encoder.head(encoder.tasks[task]))
    ids = tokenizer.encode(encoder.prompt_segments(task, texts, feeling=feeling))
    end = tokenizer.control_id("<|im_end|>")
    said: list[int] = []
    while len(said) < max_tokens:
        hidden = network(head, torch.tensor([ids + said]))[0, -1]
        token = int(network.logits(hidden).argmax())
        if token == end:
            break
        said.append(token)
    return tokenizer.decode(said)
