"""The shape of models whose tokens are made up in tests. Imports no torch."""

from qwen_aio.engine.config import ModelConfig

TINY = ModelConfig(
    vocab_size=640,
    hidden_size=1,
    intermediate_size=1,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=2,
    has_qkv_bias=True,
    has_qk_norm=False,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    max_positions=512,
    tied=True,
    eos_ids=(),
)
