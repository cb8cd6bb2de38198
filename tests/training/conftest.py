"""A small world of data, written here: the real files are not in the repository."""

import gzip
import json
from pathlib import Path

import pytest

from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.tasks.loader import load_tasks
from training import corpus, prompts
from training.recipe import TASKS, Phase, Recipe, Shape
from training.rows import Encoder
from training.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = Shape(
    vocab_size=400, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, max_positions=256
)


@pytest.fixture(scope="session")
def recipe():
    sources = (
        "online_shopping_10_cats",
        "sst2",
        "world_sentences",
        "world_dialogues",
        "support",
        "beyond",
        "world_summaries",
        "contrast",
        "exchanges",
        "plain",
        "safety",
        "ordinary",
    )
    first = Phase(dict.fromkeys(sources, 1.0), batch_tokens=512, peak_lr=1e-2, final_lr=1e-4, warmup_steps=3)
    second = Phase(dict.fromkeys(sources, 0.5), batch_tokens=256, peak_lr=3e-3, final_lr=1e-5, warmup_steps=2)
    return Recipe(
        phases=(first, second),
        shape=TINY,
        world_sentences=10,
        world_dialogues=10,
        world_summaries=4,
        reworded_share=0.5,
        contrast_sentences=10,
        exchanges=10,
        plain_talks=12,
        safety_messages=12,
        ordinary_messages=12,
        support_dialogues=5,
        beyond_requests=6,
        checkpoint_every_s=0.0,
        evaluations=2,
    )


@pytest.fixture(scope="session")
def specification():
    anchors = ["正面", "负面", "中性", "assistant\n", "user\n", "【情感】:", "【安全】:", "平安", "危机", "急症"]
    texts = ["快递太慢了,差评!", "房间很干净", "the battery is great", "你好,我在", *anchors] * 30
    return train_tokenizer(texts, vocab_size=400)


@pytest.fixture(scope="session")
def tokenizer(specification):
    return Tokenizer(specification)


@pytest.fixture(scope="session")
def encoder(tokenizer):
    tasks = load_tasks(ROOT / "prompts")
    worded = {task.name: task for task in prompts.worded(tasks["sentiment"])}
    return Encoder(tokenizer, {name: tasks[name] for name in TASKS} | worded)


@pytest.fixture
def data(tmp_path):
    """A folder with one small file of every kind; the texts of dev rows hold the word 秘密."""
    folder = tmp_path / "data"
    folder.mkdir()
    reviews = [("很好用", "positive"), ("太差了", "negative"), ("颜色不对,失望", "negative"), ("喜欢", "positive")]
    rows = [_row("online_shopping_10_cats", text * n, label) for text, label in reviews for n in (1, 2, 3)]
    rows += [_row("online_shopping_10_cats", f"秘密{text}", label, part="dev") for text, label in reviews]
    _write(folder / "sentiment_zh.jsonl.gz", rows)
    english = [_row("sst2", "a fine film", "positive"), _row("sst2", "dull and slow", "negative")]
    _write(folder / "sentiment_en.jsonl.gz", [*english, _row("sst2", "a 秘密 film", "positive", part="dev")])
    talk = [["user", "考试压力好大"], ["assistant", "先休息一下,慢慢来。"], ["user", "谢谢"], ["assistant", "我在。"]]
    grave = [["user", "我不想活了"], ["assistant", "请联系身边的人。"]]
    _write(folder / corpus.SUPPORT_FILE, [{"src": "smilechat", "turns": turns} for turns in (talk, grave)])
    for language, name in corpus.INSTRUCTION_FILES.items():
        asked = {"zh": "写一首关于海的诗", "en": "Name three rivers."}[language]
        _write(folder / name, [{"src": f"alpaca_{language}", "turns": [["user", asked], ["assistant", "-"]]}])
    (folder / corpus.SPOKEN_REQUESTS_FILE).write_text("打开客厅的灯\n你是谁呀\n", encoding="utf-8")
    return folder


def _row(source, text, label, part="train"):
    return {"src": source, "label": label, "part": part, "text": text}


def _write(path, rows):
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
