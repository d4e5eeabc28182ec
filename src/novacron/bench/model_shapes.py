"""Shapes of Llama models, for those with random weights that are made to measure speed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from novacron.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """The sizes of a Llama model, named as in its config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 32_000
    head_dim: int = 64
    max_position_embeddings: int = 16_384
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"{part.name} is {value}: give a positive number.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}: give a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}: rotary embeddings need an even one.")

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(size) for _, size in self.tensors())

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every weight, in the order of the layers."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        for layer in range(self.num_hidden_layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm.weight", (hidden,)
            yield f"{prefix}.self_attn.q_proj.weight", (queries, hidden)
            yield f"{prefix}.self_attn.k_proj.weight", (keys, hidden)
            yield f"{prefix}.self_attn.v_proj.weight", (keys, hidden)
            yield f"{prefix}.self_attn.o_proj.weight", (hidden, queries)
            yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
            yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
            yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        yield "model.norm.weight", (hidden,)
        if not self.tie_word_embeddings:
            yield "lm_head.weight", (self.vocab_size, hidden)


SHAPES: Mapping[str, LlamaShape] = {
    "tiny": LlamaShape(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=512, head_dim=16, max_position_embeddings=1024,
    ),
    "0.2b": LlamaShape(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=16,
        num_key_value_heads=4,
    ),
    "1.1b": LlamaShape(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
        num_key_value_heads=4,
    ),
    "3.2b": LlamaShape(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
        num_key_value_heads=8, vocab_size=128_256, head_dim=128, rope_theta=500_000.0,
        tie_word_embeddings=True,
    ),
    "8b": LlamaShape(
        hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128_256, head_dim=128, rope_theta=500_000.0,
    ),
    "405b": LlamaShape(
        hidden_size=16_384, intermediate_size=53_248, num_hidden_layers=126,
        num_attention_heads=128, num_key_value_heads=8, vocab_size=128_256, head_dim=128,
        rope_theta=500_000.0,
    ),
}  # fmt: skip


def choose_shape(name: str, changes: Mapping[str, Any]) -> LlamaShape:
    """A shape of SHAPES with some sizes replaced. Raises ConfigError."""
    if name not in SHAPES:
        raise ConfigError(f"There is no shape '{name}'; choose one of {', '.join(SHAPES)}.")
    return replace(SHAPES[name], **changes)
