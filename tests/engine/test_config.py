"""What a model folder may say about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_aio.engine.config import ModelConfig
from qwen_aio.errors import InvalidModel

PLAIN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "eos_token_id": 151643,
}


def load(folder: Path, **changes: object) -> ModelConfig:
    values = {key: value for key, value in {**PLAIN, **changes}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
    return ModelConfig.load(folder)


def test_a_published_config_is_read(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.num_layers, config.num_heads, config.head_dim, config.tied) == (24, 16, 64, True)
    assert config.rope_theta == 1_000_000.0
    assert config.eos_ids == (151643,)


def test_byte_order_marks_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 151645}')
    plain = load(tmp_path)
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text((tmp_path / name).read_text(), encoding="utf-8-sig")
    assert ModelConfig.load(tmp_path) == plain


def test_rope_as_transformers_5_writes_it(tmp_path: Path) -> None:
    parameters = {"rope_type": "default", "rope_theta": 5000.0}
    assert load(tmp_path, rope_theta=..., rope_parameters=parameters).rope_theta == 5000.0


def test_head_dim_counts_when_given(tmp_path: Path) -> None:
    assert load(tmp_path, head_dim=128).head_dim == 128


def test_qwen3_has_norms_where_qwen2_has_biases(tmp_path: Path) -> None:
    architecture = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False}
    qwen3, qwen2 = load(tmp_path, **architecture, head_dim=128), load(tmp_path)
    assert (qwen3.has_qk_norm, qwen3.has_qkv_bias, qwen3.head_dim) == (True, False, 128)
    assert (qwen2.has_qk_norm, qwen2.has_qkv_bias) == (False, True)
    assert not load(tmp_path, attention_bias=False).has_qkv_bias
    # q and o of 16 heads, k and v of as many, each of 128 numbers in the place of 64
    assert qwen3.num_weights - qwen2.num_weights == 24 * 4 * 16 * 64 * 1024


def test_end_tokens_come_from_the_generation_config_too(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    assert load(tmp_path).eos_ids == (151643, 151645)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "LlamaForCausalLM.*only Qwen2ForCausalLM"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClassification"),
        ({"architectures": ..., "model_type": ...}, "only Qwen2ForCausalLM"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "Qwen3MoeForCausalLM"),
        ({"architectures": ["Qwen3ForCausalLM"], "attention_bias": True}, "attention_bias is on"),
        ({"attention_bias": "no"}, "attention_bias is 'no'"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized with GPTQ to 4 bits"),
        ({"quantization_config": True}, "quantized"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "use_sliding_window"),
        ({"rope_scaling": "yes"}, "incomplete or damaged"),
        ({"eos_token_id": "end"}, "incomplete or damaged"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"vocab_size": ...}, "vocab_size"),
        ({"hidden_size": "wide"}, "wide"),
        ({"num_attention_heads": 0, "num_key_value_heads": 0}, "incomplete or damaged"),
        ({"num_hidden_layers": -1}, "num_layers"),
        ({"num_key_value_heads": 5}, "5 key-value heads"),
        ({"head_dim": 33}, "head_dim 33"),
        ({"vocab_size": float("inf")}, "incomplete or damaged"),
        ({"max_position_embeddings": float("inf")}, "incomplete or damaged"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"head_dim": 10**30}, "head_dim"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(InvalidModel, match=words):
        load(tmp_path, **changes)


@pytest.mark.parametrize("content", [None, "", "{", "[1]", b"\xff\xfe", "[" * 100_000], ids=lambda it: str(it)[:9])
def test_a_missing_or_damaged_config_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidModel, match=r"config\.json"):
        ModelConfig.load(tmp_path)
