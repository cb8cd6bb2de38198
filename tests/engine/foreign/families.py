"""Tiny random checkpoints of four families, each with a tokenizer, control tokens and a chat template of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from tests.engine.conftest import CORPUS

RUNS = ("\n\n", "▁▁", "▁▁▁")  # added tokens, but text
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}

LLAMA = """\
{{- bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
PHI = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
GLM = """\
[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>
{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


@dataclass(frozen=True)
class Family:
    """How to make one checkpoint, and what its tokenizer adds to a vocabulary of text."""

    name: str
    model: Callable[..., PreTrainedModel]
    config: Callable[..., Any]
    tokenizer: Callable[[Family], dict[str, Any]]
    controls: tuple[str, ...]
    template: str
    end: str
    special: Mapping[str, str] = field(default_factory=dict)  # of tokenizer_config.json
    shape: Mapping[str, object] = field(default_factory=dict)
    swallows: tuple[str, ...] = ()  # controls that take the white space behind them


def byte_level(family: Family) -> dict[str, Any]:
    """As Llama 3 and GLM 4 have it: control tokens behind the vocabulary."""
    tokenizer = RustTokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    return with_controls(tokenizer, family)


def sentence_piece(family: Family) -> dict[str, Any]:
    """As Gemma has it: bytes and control tokens stand in the vocabulary, and so do runs of line breaks."""
    tokenizer = RustTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    stated = trained(tokenizer, ["<unk>", *BYTES, *family.controls, *RUNS])
    kept = {"<unk>", *family.controls, *RUNS}
    stated["added_tokens"] = [token for token in stated["added_tokens"] if token["content"] in kept]
    for token in stated["added_tokens"]:
        token["special"] = token["content"].startswith("<") and token["content"] != "<start_of_turn>"
    return stated


def llama_2(family: Family) -> dict[str, Any]:
    """As Phi 3 has it: Llama 2's, which puts a space in front of every text, and more control tokens behind it."""
    tokenizer = RustTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    stated = trained(tokenizer, ["<unk>", "<s>", "</s>", *BYTES])
    stated["added_tokens"] = [token for token in stated["added_tokens"] if token["content"] not in BYTES]
    return with_controls(RustTokenizer.from_str(json.dumps(stated)), family)


def trained(tokenizer: RustTokenizer, inside: list[str]) -> dict[str, Any]:
    """With `inside` its vocabulary. It is trained on words, although SentencePiece's kind merges across them."""
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=460, special_tokens=inside))
    return json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}


def with_controls(tokenizer: RustTokenizer, family: Family) -> dict[str, Any]:
    tokenizer.add_special_tokens(list(family.controls))
    stated = json.loads(tokenizer.to_str())
    for token in stated["added_tokens"]:
        token["rstrip"] = token["content"] in family.swallows
    return stated


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "llama",
            LlamaForCausalLM,
            LlamaConfig,
            byte_level,
            ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            LLAMA,
            end="<|eot_id|>",
            special={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
            shape={"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
        ),
        Family(
            "gemma",
            Gemma2ForCausalLM,
            Gemma2Config,
            sentence_piece,
            ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
            GEMMA,
            end="<end_of_turn>",
            special={"bos_token": "<bos>", "eos_token": "<eos>"},
            shape={"sliding_window": 12, "head_dim": 16, "num_hidden_layers": 4},
        ),
        Family(
            "phi",
            Phi3ForCausalLM,
            Phi3Config,
            llama_2,
            ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
            PHI,
            end="<|end|>",
            special={"bos_token": "<s>", "eos_token": "<|endoftext|>"},
            swallows=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ),
        Family(
            "glm",
            GlmForCausalLM,
            GlmConfig,
            byte_level,
            ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
            GLM,
            end="<|user|>",
            special={"eos_token": "<|endoftext|>"},
            shape={"head_dim": 16, "attention_bias": True},
        ),
    )
}


def make_checkpoint_of(family: Family, folder: Path, *, seed: int = 1, **shape: object) -> Path:
    """A folder as the family ships it, with random weights."""
    stated = family.tokenizer(family)
    tokenizer = RustTokenizer.from_str(json.dumps(stated))
    if "bos_token" in family.special:
        bos = family.special["bos_token"]
        special = [(bos, tokenizer.token_to_id(bos))]
        stated["post_processor"] = json.loads(
            processed_by(processors.TemplateProcessing(single=f"{bos} $A", special_tokens=special), stated)
        )["post_processor"]
    ends = [tokenizer.token_to_id(token) for token in {family.end, family.special["eos_token"]}]
    torch.manual_seed(seed)
    values = SHAPE | {"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": sorted(ends)} | family.shape | shape
    model = family.model(family.config(**values))
    for name, parameter in model.named_parameters():  # far from the usual start, so that mistakes show
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.15)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(stated, ensure_ascii=False), encoding="utf-8")
    stated_config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": family.template, **family.special}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated_config), encoding="utf-8")
    return folder


def processed_by(processor: Any, stated: dict[str, Any]) -> str:
    tokenizer = RustTokenizer.from_str(json.dumps(stated))
    tokenizer.post_processor = processor
    return tokenizer.to_str()
