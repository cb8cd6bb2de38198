"""Texts of exactly so many tokens, and what the talking model says after them.

Only tokens that are one English word with its space are used: they never merge with their neighbours, so every side
sees the same ids whether it is given text or ids. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

SEED = 4
RUN, OWN, NUM_RUNS = 24, 8, 5  # a quoting answer: runs of words from the passage, words of its own between them
PREAMBLE = 16  # words before the passage
END = "<|im_end|>"


@dataclass(frozen=True)
class Words:
    """Every word once, in a random order that is the same for everybody. Immutable."""

    story: tuple[int, ...]  # a circle: each is followed by the next, so an answer never repeats itself
    passage: tuple[int, ...]  # what the quoting prompt shows
    own: tuple[int, ...]  # what the quoting answer says in its own words
    trigger: int  # ends the quoting prompt
    end: int
    texts: Mapping[int, str]

    @classmethod
    def load(cls, model_dir: Path) -> Words:
        """The words of the tokenizer in `model_dir`."""
        tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        found = sorted(
            (token, name) for name, token in tokenizer.get_vocab().items() if re.fullmatch("Ġ[a-z]{3,}", name)
        )
        texts = {token: f" {name[1:]}" for token, name in found}
        ids = [token for token, text in texts.items() if tokenizer.encode(text).ids == [token]]
        Random(SEED).shuffle(ids)
        num_passage, num_own = RUN * NUM_RUNS, OWN * (NUM_RUNS - 1)
        passage, own, rest = ids[:num_passage], ids[num_passage : num_passage + num_own], ids[num_passage + num_own :]
        end = tokenizer.token_to_id(END)
        assert end is not None, f"{model_dir} has no Qwen tokenizer"
        return cls(tuple(rest[1:]), tuple(passage), tuple(own), rest[0], end, texts)

    def fresh(self, count: int, *, seed: int) -> list[int]:
        """A prompt of `count` tokens that nobody has seen."""
        return Random(seed).sample(self.story, count)

    @property
    def quoting_prompt(self) -> list[int]:
        """A passage to be quoted."""
        return [*self.story[:PREAMBLE], *self.passage, self.trigger]

    @property
    def quoting_answer(self) -> list[int]:
        """What follows it: four fifths of it stand in the prompt, in runs of `RUN` words."""
        runs = [self.passage[start : start + RUN] for start in range(0, len(self.passage), RUN)]
        own = [self.own[start : start + OWN] for start in range(0, len(self.own), OWN)]
        return [*chain.from_iterable(chain(*pair) for pair in zip(runs, own, strict=False)), *runs[-1]]

    @property
    def successors(self) -> list[tuple[int, int]]:
        """(token, the token that follows it); no token follows two others."""
        return [*pairwise([*self.story, self.story[0]]), *pairwise([self.trigger, *self.quoting_answer, self.end])]

    def text(self, ids: Sequence[int]) -> str:
        """As it is typed."""
        return "".join(self.texts[token] for token in ids)
