"""Random checkpoints of any Qwen2 or Qwen3 shape, written by transformers, our oracle; a small tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2Config

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.text.tokenizer import Tokenizer

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "the parcel arrived today and the colour is not like the picture, a little disappointed",
    "system user assistant positive negative neutral thank you very much for the quick delivery",
    "刚收到货,颜色和图片不太一样,有点小失望。你好,谢谢你的帮助!正面 负面 中性",
    "判断这段文字的情感,只答正面、负面或中性。今天天气真好,我很开心。",
] * 4

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def specification() -> str:
    """A tokenizer.json trained here: byte-level BPE with the control tokens of ChatML."""
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=520, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(CONTROLS)
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def tokenizer(specification: str) -> Tokenizer:
    return Tokenizer(specification)


@pytest.fixture(scope="session")
def make_checkpoint(specification: str, tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """A folder with a random model; keywords are those of `config`, and what is named here."""

    def make(
        *,
        config: type[PreTrainedConfig] = Qwen2Config,
        dtype: torch.dtype = torch.float32,
        max_shard_size: str = "5GB",
        std: float = 0.15,
        seed: int = 1,
        **shape: object,
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        defaults = {
            "vocab_size": 640,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "eos_token_id": Tokenizer(specification).control_id("<|im_end|>"),
        }
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config(**(defaults | shape)))
        for name, parameter in model.named_parameters():  # far from the usual start, so that mistakes show
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=std)
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        (folder / "tokenizer.json").write_text(specification, encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="session")
def oracle(checkpoint: Path) -> PreTrainedModel:
    return load_oracle(checkpoint)


@pytest.fixture
def make_engine(checkpoint: Path) -> Callable[..., Engine]:
    """A fresh engine over the common checkpoint; keywords are those of EngineLimits."""

    def make(**limits: int) -> Engine:
        return load_engine(checkpoint, EngineLimits(**({"max_context": 256, "kv_mb": 1} | limits)), threads=1)

    return make


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


def load_oracle(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module", params=["", "torch"], ids=["native", "torch"])
def over_both_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module, over the C++ kernels and over torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_AIO_KERNEL", request.param)
        yield
