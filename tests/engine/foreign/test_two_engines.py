"""A checkpoint of Qwen in both engines: the same labels and answers. And which engine a folder gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3Config

from qwen_aio.engine.choice import choose_engine, size_of
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.foreign.load import load_foreign, make_foreign_engine
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.requests import Generate
from qwen_aio.errors import InvalidModel
from tests.engine.conftest import MakeCheckpoint
from tests.engine.foreign.conftest import Example
from tests.engine.foreign.test_foreign_engine import WORKS
from tests.engine.running import ids_of, logprobs_of, run, text_of
from tests.engine.thinking_folder import thinking_folder

CHATML = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
LIMITS = EngineLimits(max_context=256, kv_mb=1)


@pytest.fixture
def chatml(checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "chatml"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML, "eos_token": "<|im_end|>"}))
    return folder


@pytest.fixture(scope="module")
def qwen3(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With some seeds the sampled answers differ: transformers may sample control tokens, too.
    made = make_checkpoint(config=Qwen3Config, head_dim=24, tie_word_embeddings=False, seed=2)
    return thinking_folder(made, tmp_path_factory.mktemp("both") / "qwen3")


@pytest.mark.parametrize("architecture", ["chatml", "qwen3"])
def test_both_engines_give_the_same(architecture: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(architecture)
    assert choose_engine(folder, asked="auto").kind == "qwen"
    ours = run(load_engine(folder, LIMITS, threads=1), WORKS)
    loaded = load_foreign(folder, threads=1, precision="fp32")
    foreign = run(make_foreign_engine(loaded, LIMITS, threads=1), WORKS)
    for name, work in WORKS.items():
        if isinstance(work, Generate):
            assert ids_of(foreign[name]) == ids_of(ours[name]), name
            assert text_of(foreign[name]) == text_of(ours[name]), name
        else:
            assert logprobs_of(foreign[name]) == pytest.approx(logprobs_of(ours[name]), abs=1e-4), name


def test_bf16_is_close_and_takes_half_the_memory(chatml: Path) -> None:
    fp32 = load_foreign(chatml, threads=1, precision="fp32")
    bf16 = load_foreign(chatml, threads=1, precision="bf16")
    assert 2 * bf16.model.token_bytes == fp32.model.token_bytes == size_of(chatml, "transformers").token_bytes
    exact, rough = (
        logprobs_of(run(make_foreign_engine(loaded, LIMITS, threads=1), {"a": WORKS["labels"]})["a"])
        for loaded in (fp32, bf16)
    )
    assert exact != rough
    assert rough == pytest.approx(exact, abs=1)


def with_config(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def without_chatml(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|im_", "<|turn_"))
    return folder


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: with_config(folder, use_sliding_window=True), "sliding windows"),
        (lambda folder: with_config(folder, rope_scaling={"type": "yarn"}, rope_parameters=None), "rope scaling"),
        (lambda folder: with_config(folder, architectures=["LlamaForCausalLM"]), "LlamaForCausalLM"),
        (without_chatml, "no <|im_start|> and no <|im_end|>"),
    ],
)
def test_auto_takes_ours_for_what_it_computes(chatml: Path, change: Callable[[Path], Path], why: str) -> None:
    assert choose_engine(chatml, asked="auto").kind == "qwen"
    assert choose_engine(chatml, asked="transformers").kind == "transformers"
    choice = choose_engine(change(chatml), asked="auto")
    assert choice.kind == "transformers"
    assert why in str(choice)
    assert "the slow road" in str(choice)
    assert choose_engine(chatml, asked="qwen").kind == "qwen"


def test_a_damaged_config_is_nobody_s(chatml: Path) -> None:
    (chatml / "config.json").write_text("{")
    with pytest.raises(InvalidModel, match=r"config\.json"):
        choose_engine(chatml, asked="auto")
    (chatml / "config.json").write_text("{}")
    with pytest.raises(InvalidModel, match="damaged"):
        size_of(chatml, "transformers")


def test_the_size_of_a_checkpoint_is_read_off_its_files(example: Example) -> None:
    size, model = size_of(example.folder, "transformers"), example.loaded.model
    numbers = {parameter.data_ptr(): parameter.numel() for parameter in example.oracle.parameters()}
    assert size.num_weights == sum(numbers.values())
    assert (size.token_bytes, size.max_positions) == (model.token_bytes, model.max_positions)


def test_our_engine_is_loaded_without_transformers(checkpoint: Path) -> None:
    """It takes seconds to import, and memory."""
    code = f"""
import sys
from pathlib import Path
import qwen_aio.cli.serve, qwen_aio.worker.loading
from qwen_aio.config import load_settings
from qwen_aio.worker.loading import choose_model, load_weights
settings = load_settings({{"model": {str(checkpoint)!r}, "precision": "fp32"}})
load_weights(settings, choose_model(settings), threads=1)
print("transformers" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False"]
