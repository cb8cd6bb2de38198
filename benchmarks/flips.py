"""How often a label changes when only the typing or the wording of the prompt does, through the product's own /v1/run.

    python -m benchmarks.flips --data DIR [--rows 2000] [--short]

A worker with the bundled model, the shipped tasks and the sentiment task in other wordings is asked about dev rows (see
benchmarks/accuracy.py): as they are, in every other typing, under every other prompt. Last line of stdout: one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from opencc import OpenCC

from benchmarks.servers import ROOT, TEXTS_PER_CALL, last_line, started
from qwen_aio.evaluation.share import Share
from qwen_aio.evaluation.typings import without_marks
from qwen_aio.language import language_of
from training.corpus import NOT_JUDGED, Labelled, sentiment_rows
from training.prompts import MARKS, WORDINGS, Wording

SEED = 3
SHORT_ROWS = 100
OTHER_FOCUS_WORDS = ["漏水", "异味", "吵", "脏", "划算", "slow", "broken", "refund"]
# Wordings that no training has seen.
UNSEEN = (
    Wording("unseen_zh", "请给下面的留言打情感标签,可选正面、中性、负面,不要写别的。"),
    Wording("unseen_en", "What does the writer feel? Reply with exactly one of 正面, 中性, 负面.", "{}", "Label:"),
)

Typing = Callable[[str], str]


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)


def misspelt(text: str) -> str:
    """Two letters of the longest word change places."""
    words = sorted(re.finditer(r"[A-Za-z]{5,}", text), key=lambda word: -len(word[0]))
    if not words:
        return text
    at = words[0].start() + 1
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def sound_alike(text: str) -> str:
    """The first character that an input method often gets wrong is wrong."""
    found = re.search("[的在做那他块到以]", text)
    if not found:
        return text
    wrong = {"的": "得", "在": "再", "做": "作", "那": "哪", "他": "她", "块": "快", "到": "倒", "以": "已"}[found[0]]
    return text[: found.start()] + wrong + text[found.end() :]


TYPINGS: Mapping[str, Mapping[str, Typing]] = {
    "zh": {
        "white space": lambda text: f"  \n{text}\t ",
        "neutral emoji": lambda text: text + "📦",
        "no marks": without_marks,
        "traditional": OpenCC("s2t").convert,
        "typo": sound_alike,
        "doubled": lambda text: f"{text} {text}",
        "mixed": lambda text: f"BTW {text}",
    },
    "en": {
        "white space": lambda text: f"  \n{text}\t ",
        "neutral emoji": lambda text: text + " 📦",
        "no marks": without_marks,
        "upper": str.upper,
        "lower": str.lower,
        "full width": full_width,
        "typo": misspelt,
        "doubled": lambda text: f"{text} {text}",
        "mixed": lambda text: f"刚看到: {text}",
    },
}


def worded_tasks(folder: Path) -> None:
    """The shipped tasks in `folder`, and one more of each wording of the sentiment task."""
    shutil.copytree(ROOT / "prompts", folder, dirs_exist_ok=True)
    shipped = (folder / "sentiment" / "task.toml").read_text(encoding="utf-8")
    prompt = (folder / "sentiment" / "prompt.j2").read_text(encoding="utf-8")
    _write(
        folder / "sentiment_focus",
        re.sub(r"(?m)^focus_words = .*$", f"focus_words = {OTHER_FOCUS_WORDS}", shipped),
        prompt,
    )
    for wording in (*WORDINGS, *UNSEEN):
        text = shipped if "neutral" in wording.labels else _without_neutral(shipped)
        blocks = {
            "system": wording.system,
            "user": MARKS + wording.user.replace("{}", "{{ text }}"),
            "answer": wording.answer,
        }
        template = "".join(f"{{% block {name} %}}{block}{{% endblock %}}" for name, block in blocks.items())
        _write(folder / f"sentiment_{wording.name}", text, template)


def _without_neutral(toml: str) -> str:
    return re.sub(r'(?m)^ *\{ name = "neutral".*\n', "", re.sub(r"(?m)^\[neutral\]\n(?:\w.*\n)+", "", toml))


def _write(folder: Path, toml: str, prompt: str) -> None:
    folder.mkdir()
    (folder / "task.toml").write_text(toml, encoding="utf-8")
    (folder / "prompt.j2").write_text(prompt, encoding="utf-8")


async def labels(session: aiohttp.ClientSession, texts: Sequence[str], mode: str = "sentiment") -> list[str]:
    """What the server answers to `texts`."""
    found: list[str] = []
    for start in range(0, len(texts), TEXTS_PER_CALL):
        body = {"texts": texts[start : start + TEXTS_PER_CALL], "mode": mode}
        async with session.post("/v1/run", json=body) as response:
            response.raise_for_status()
            results: list[dict[str, Any]] = (await response.json())["results"]
        found += [result["label"] for result in results]
    return found


async def by_typing(
    session: aiohttp.ClientSession, rows: Sequence[Labelled], shipped: Sequence[str]
) -> dict[str, Share]:
    """Language and typing -> the rows whose label changed, of those that the typing changes."""
    shares = {}
    for language, typings in TYPINGS.items():
        for name, retyped in typings.items():
            pairs = [
                (changed, label)
                for row, label in zip(rows, shipped, strict=True)
                if (language_of(row.text) or "en") == language and (changed := retyped(row.text)) != row.text
            ]
            others = await labels(session, [text for text, _ in pairs])
            flips = sum(other != label for other, (_, label) in zip(others, pairs, strict=True))
            shares[f"{language} {name}"] = Share(flips, len(pairs))
    return shares


async def by_wording(
    session: aiohttp.ClientSession, rows: Sequence[Labelled], shipped: Sequence[str]
) -> dict[str, Share]:
    """Wording -> the rows whose label stayed; with two labels, of those that are not neutral with three."""
    shares = {}
    for name in ("focus", *(wording.name for wording in (*WORDINGS, *UNSEEN))):
        pairs = [(row.text, label) for row, label in zip(rows, shipped, strict=True)]
        if name == "two_labels":
            pairs = [(text, label) for text, label in pairs if label != "neutral"]
        others = await labels(session, [text for text, _ in pairs], f"sentiment_{name}")
        shares[name] = Share(sum(o == label for o, (_, label) in zip(others, pairs, strict=True)), len(pairs))
    return shares


def chosen_rows(data: Path, count: int) -> list[Labelled]:
    """Dev rows of all sets, drawn with a fixed seed; not CPED, whose labels need the picture."""
    rows = [row for row in sentiment_rows(data, "dev") if row.text.strip() and row.source != NOT_JUDGED]
    random.Random(SEED).shuffle(rows)
    return rows[:count]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    rows = chosen_rows(arguments.data, SHORT_ROWS if arguments.short else arguments.rows)
    with tempfile.TemporaryDirectory() as prompts:
        worded_tasks(Path(prompts))
        async with (
            started("worker", "--model", "bundled", "--prompts-dir", prompts, "--log-level", "error") as url,
            aiohttp.ClientSession(base_url=url, trust_env=False) as session,
        ):
            shipped = await labels(session, [row.text for row in rows])
            typed = await by_typing(session, rows, shipped)
            worded = await by_wording(session, rows, shipped)
    for title, shares in (("flipped by typing", typed), ("same label under another prompt", worded)):
        print(f"\n{title}")
        print("\n".join(_lines(shares)))
    print(last_line({name: round(share.value, 4) for name, share in (typed | worded).items()}))


def _lines(shares: Mapping[str, Share]) -> Iterator[str]:
    for name, share in shares.items():
        yield f"{name:20s} {share}"


if __name__ == "__main__":
    asyncio.run(main())
