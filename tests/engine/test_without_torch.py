"""The engine over a model of numpy: it decides and answers in a process that never imports torch.

python -m tests.engine.test_without_torch TOKENIZER_JSON
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Control, Prompt, Sampling, Text
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Score
from qwen_aio.engine.scheduling.scheduler import Span
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.result import Completion, Scores, TextDelta
from tests.engine.tiny_config import TINY

ASKED = Prompt((Control("<|im_start|>"), Text("system\n")), (), (Text("the parcel arrived today"),))


class BigramModel:
    """The next token depends on the newest one alone. Its pool holds the token of each slot (ForwardModel)."""

    config = TINY
    token_bytes = 1024

    def new_pool(self, num_slots: int) -> NDArray[np.int64]:
        return np.full(num_slots, -1)

    def forward(self, spans: Sequence[Span], pool: NDArray[np.int64]) -> NDArray[np.float32]:
        """(num_logit_rows, 1): the row's token."""
        for span in spans:
            rows = slice(span.start, span.end)
            pool[span.lease.slots[rows]] = span.sequence.ids[rows]
        return np.array([[pool[span.lease.slots[row]]] for span in spans for row in span.logit_rows], np.float32)

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(int(token)).standard_normal(self.config.vocab_size) for [token] in hidden]
        return np.array(rows, np.float32)


def test_the_engine_computes_in_a_process_without_torch(specification: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(specification, encoding="utf-8")
    command = [sys.executable, "-m", "tests.engine.test_without_torch", str(tmp_path / "tokenizer.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def main(path: Path) -> None:
    tokenizer = Tokenizer(path.read_text(encoding="utf-8"))
    engine = Engine(BigramModel(), tokenizer, EngineLimits(max_context=256, kv_mb=1))
    sampling = Sampling(max_tokens=8, top_k=0, presence_penalty=0.5)
    engine.add("a", Generate(ASKED, sampling, top_logprobs=3), arrived_s=engine.clock())
    engine.add("b", Score(ASKED, ("positive", "negative")), arrived_s=engine.clock())
    items = []
    while engine.has_work:
        items += [output.item for output in engine.step()]
        engine.check_integrity()
    assert {type(item) for item in items} == {TextDelta, Completion, Scores}
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main(Path(sys.argv[1]))
