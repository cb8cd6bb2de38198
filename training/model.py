"""Qwen2's arithmetic for training: a batch shares one system head, which is computed once.

Every row of a batch attends to the head's keys and values as if it stood before the row; exact, gradients included, and
a row costs only its own tokens. Parameter names are those of transformers' Qwen2ForCausalLM.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.recipe import Shape

INIT_STD = 0.02


class Rope(NamedTuple):
    """Cosine and sine of every position's angles, each (positions, head_size)."""

    cos: Tensor
    sin: Tensor


Shared = tuple[Tensor, Tensor]  # keys and values of the system head, each (kv, head, size)


class Attention(nn.Module):
    """Grouped-query attention of rows over the shared head and themselves."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_size = shape.num_heads, shape.num_kv_heads, shape.head_size
        self.q_proj = nn.Linear(shape.hidden_size, self.num_heads * self.head_size)
        self.k_proj = nn.Linear(shape.hidden_size, self.num_kv_heads * self.head_size)
        self.v_proj = nn.Linear(shape.hidden_size, self.num_kv_heads * self.head_size)
        self.o_proj = nn.Linear(self.num_heads * self.head_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, *, head: int, rows: int, rope: Rope) -> Tensor:
        """`x` is (head + rows * length, hidden): the head's tokens, then the rows one after another."""
        q = self._rotate(self.q_proj(x).view(len(x), self.num_heads, -1), rope) * self.head_size**-0.5
        k = self._rotate(self.k_proj(x).view(len(x), self.num_kv_heads, -1), rope)
        v = self.v_proj(x).view(len(x), self.num_kv_heads, -1)
        shared = None
        mixed = []
        if head:
            shared = (k[:head].transpose(0, 1), v[:head].transpose(0, 1))  # (kv, head, size)
            mixed.append(self._attend(q[:head], k[:head], v[:head], rows=1))
        mixed.append(self._attend(q[head:], k[head:], v[head:], rows=rows, shared=shared))
        out: Tensor = self.o_proj(torch.cat(mixed))
        return out

    def _rotate(self, x: Tensor, rope: Rope) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        cos, sin = rope.cos.to(x.dtype).unsqueeze(1), rope.sin.to(x.dtype).unsqueeze(1)
        return x * cos + torch.cat((-right, left), dim=-1) * sin

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, rows: int, shared: Shared | None = None) -> Tensor:
        """Plain matrix products: torch's fused kernel spent 20 ms a layer in its backward pass, this one 3.

        q is (rows * length, heads, size), k and v (rows * length, kv, size); the result (rows * length, heads * size).
        """
        kv, length = self.num_kv_heads, len(q) // rows
        group = self.num_heads // kv
        q = q.view(rows, length, kv, group, -1).permute(2, 0, 3, 1, 4).reshape(kv, rows, group * length, -1)
        k, v = (part.view(rows, length, kv, -1).permute(2, 0, 1, 3) for part in (k, v))
        future = torch.ones(length, length, dtype=torch.bool).triu(1).repeat(group, 1)
        scores = (q @ k.transpose(2, 3)).masked_fill(future, float("-inf"))  # (kv, rows, group * length, length)
        if shared is None:
            out = scores.softmax(-1).to(v.dtype) @ v
        else:
            shared_k, shared_v = shared
            flat = q.reshape(kv, rows * group * length, -1)
            over_head = (flat @ shared_k.transpose(1, 2)).view(kv, rows, group * length, -1)
            num_head = shared_k.shape[1]
            weights = torch.cat((over_head, scores), dim=-1).softmax(-1).to(v.dtype)
            out = weights[..., num_head:] @ v
            out = out + (weights[..., :num_head].reshape(*flat.shape[:2], -1) @ shared_v).view_as(out)
        return out.view(kv, rows, group, length, -1).permute(1, 3, 0, 2, 4).reshape(rows * length, -1)


class SwiGlu(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.norm_eps)
        self.mlp = SwiGlu(shape)

    def forward(self, x: Tensor, *, head: int, rows: int, rope: Rope) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), head=head, rows=rows, rope=rope)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Network(nn.Module):
    """Embeddings, layers, final norm; the output matrix is the embedding."""

    def __init__(self, shape: Shape, *, vocab_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.norm_eps)
        self._initialise()

    def forward(self, head: Tensor, rows: Tensor) -> Tensor:
        """Hidden states of `rows` (rows, length), each standing behind `head` (tokens): (rows, length, hidden)."""
        num_rows, length = rows.shape
        positions = torch.cat((torch.arange(len(head)), (len(head) + torch.arange(length)).repeat(num_rows)))
        rope = self._rope(positions)
        x = self.embed_tokens(torch.cat((head, rows.reshape(-1))))
        for layer in self.layers:
            x = layer(x, head=len(head), rows=num_rows, rope=rope)
        hidden: Tensor = self.norm(x[len(head) :])
        return hidden.view(num_rows, length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the whole vocabulary for hidden states (..., hidden)."""
        return functional.linear(hidden, self.embed_tokens.weight)

    def _rope(self, positions: Tensor) -> Rope:
        size = self.shape.head_size
        frequencies = self.shape.rope_theta ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = (positions.float().unsqueeze(1) * frequencies).repeat(1, 2)
        return Rope(angles.cos(), angles.sin())

    def _initialise(self) -> None:
        """Normal weights; what writes into the residual stream starts smaller, by the number of writers."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = INIT_STD / (2 * self.shape.num_layers) ** 0.5 if writes else INIT_STD
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
