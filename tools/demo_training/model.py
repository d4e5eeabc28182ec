"""The network that is trained: a plain Llama decoder, small enough for one CPU core.

Parameter names equal those of a Hugging Face Llama checkpoint, so that the export is a cast.
It holds no key-value cache: training and teacher-forced evaluation see whole rows.

Shapes: B rows, T tokens of a row, D hidden, N query heads, K key-value heads, H head size,
P positions that carry loss, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the network; every dimension divides by 32 and by tensor parallel 1, 2 and 4."""

    vocab_size: int = 3072
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 64
    ffn_size: int = 768
    max_positions: int = 4096
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


def rotary_table(shape: ModelShape) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position, each [max_positions, head_dim]."""
    exponent = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    frequency = shape.rope_theta**-exponent
    angle = torch.outer(torch.arange(shape.max_positions).float(), frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BNTH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    first, second = x_BNTH.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BNTH * cos_TH + turned * sin_TH).to(x_BNTH.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.group = shape.num_heads // shape.num_kv_heads
        q_size = shape.num_heads * shape.head_dim
        kv_size = shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, q_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        rows, tokens, _ = x_BTD.shape
        heads = (rows, tokens, -1, self.head_dim)
        q_BNTH = rotate(self.q_proj(x_BTD).view(heads).transpose(1, 2), cos_TH, sin_TH)
        k_BKTH = rotate(self.k_proj(x_BTD).view(heads).transpose(1, 2), cos_TH, sin_TH)
        v_BKTH = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        k_BNTH = k_BKTH.repeat_interleave(self.group, dim=1)
        v_BNTH = v_BKTH.repeat_interleave(self.group, dim=1)
        out_BNTH = F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, is_causal=True)
        out: Tensor = self.o_proj(out_BNTH.transpose(1, 2).reshape(rows, tokens, -1))
        return out


class FeedForward(nn.Module):
    """Gated SiLU feed-forward layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.ffn_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.ffn_size, bias=False)
        self.down_proj = nn.Linear(shape.ffn_size, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TH, sin_TH)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class DemoModel(nn.Module):
    """The decoder with tied input and output embeddings; `initialise` sets its first weights."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)
        cos, sin = rotary_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def compile_blocks(self) -> None:
        """Compile every layer; rows of a new shape compile once more, then are cached."""
        torch._dynamo.config.recompile_limit = 64
        for block in self.layers:
            block.compile(dynamic=False)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """Final hidden states [B, T, D] after the last norm."""
        tokens = ids_BT.shape[1]
        x_BTD = self.embed_tokens(ids_BT)
        cos_TH, sin_TH = self.cos[:tokens], self.sin[:tokens]
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x_BTD, cos_TH, sin_TH = x_BTD.to(dtype), cos_TH.to(dtype), sin_TH.to(dtype)
        for block in self.layers:
            x_BTD = block(x_BTD, cos_TH, sin_TH)
        out: Tensor = self.norm(x_BTD)
        return out

    def logits(self, hidden_PD: Tensor) -> Tensor:
        return F.linear(hidden_PD, self.embed_tokens.weight.to(hidden_PD.dtype))

    def loss(self, ids_BT: Tensor, weights_BT: Tensor) -> Tensor:
        """Weighted mean cross entropy of predicting each token with a positive weight."""
        hidden_BTD = self.hidden(ids_BT[:, :-1])
        targets, weights = ids_BT[:, 1:], weights_BT[:, 1:]
        chosen = weights > 0
        logits_PV = self.logits(hidden_BTD[chosen]).float()
        losses_P = F.cross_entropy(logits_PV, targets[chosen], reduction="none")
        weights_P = weights[chosen]
        return (losses_P * weights_P).sum() / weights_P.sum()
