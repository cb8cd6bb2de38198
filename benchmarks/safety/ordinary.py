"""Ordinary messages on which crisis detection must stay silent: which rows of the training data's folder they are.

    python -m benchmarks.safety.ordinary --data DIR

writes ordinary.txt: one fingerprint a row, because the rows themselves stay out of the repository. The pools are rows
that no training has used: the sentiment files' `part: "dev"`, and users' turns of the chat files. Of each pool the
texts with the lowest fingerprints are taken, so the pick depends on the data alone. training/corpus.py leaves out
whatever is listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training import corpus
from training.corpus import fingerprint

LIST = corpus.SAFETY / "ordinary.txt"
LENGTHS = range(4, 301)  # in characters
# Read by a person, and not ordinary: somebody in these rows may really be in danger.
NOT_ORDINARY = frozenset(
    {
        "000a280bd1c8026f",
        "0017f1e42051913a",
        "003dfc597de86239",
        "00570f807857338c",
        "006083f74abae6c6",
        "008c52f7972e2bc2",
        "013a625f3747452c",
        "02b4396997e6b2d4",
        "034b5695613d0054",
        "06ae0418c111f093",
        "0b5f057ddd196af1",
    }
)


@dataclass(frozen=True)
class Pool:
    """Texts of one file and of some of its sources (none: all), and how many of them are picked."""

    count: int
    file: str
    sources: tuple[str, ...] = ()

    def texts(self, data: Path) -> Iterator[str]:
        """All of the pool, repeated ones included."""
        for row in corpus.read_rows(data / self.file):
            if self.sources and row["src"] not in self.sources:
                continue
            if "turns" in row:
                yield from (text for speaker, text in row["turns"] if speaker == "user")
            elif row["part"] == "dev":
                yield row["text"]


POOLS = (
    Pool(700, "sentiment_zh.jsonl.gz"),
    Pool(220, "chat_zh_misc.jsonl.gz", ("lccc_toy",)),
    Pool(120, "chat_zh_misc.jsonl.gz", ("emollm_aiwei", "emollm_data")),
    Pool(60, "chat_zh_misc.jsonl.gz", ("kdconv",)),
    Pool(60, "chat_zh_misc.jsonl.gz", ("crosswoz",)),
    Pool(140, "chat_zh_support.jsonl.gz"),
    Pool(450, "sentiment_en.jsonl.gz"),
    Pool(100, "chat_en_misc.jsonl.gz", ("chatterbot_en",)),
    Pool(150, "chat_en_misc.jsonl.gz", ("alpaca_en",)),
)


def pick(data: Path) -> list[str]:
    """Fingerprints of the ordinary rows, sorted."""
    picked: set[str] = set()
    for pool in POOLS:
        suitable = {fingerprint(text) for text in pool.texts(data) if len(text) in LENGTHS}
        picked |= set(sorted(suitable - picked - NOT_ORDINARY)[: pool.count])
    return sorted(picked)


def rows(data: Path) -> list[str]:
    """The texts that ordinary.txt lists, each once. Raises MissingData if the folder lacks some of them."""
    listed = set(LIST.read_text(encoding="utf-8").split())
    found = {mark: text for pool in POOLS for text in pool.texts(data) if (mark := fingerprint(text)) in listed}
    if len(found) < len(listed):
        raise corpus.MissingData(f"{data} lacks {len(listed) - len(found)} of the {len(listed)} rows of {LIST.name}")
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    picked = pick(parser.parse_args().data)
    LIST.write_text("".join(f"{mark}\n" for mark in picked), encoding="utf-8")
    print(f"{len(picked)} rows listed in {LIST.name}")


if __name__ == "__main__":
    main()
