"""What the shared decoder is told about a model. Families fill it in from a config.json."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.kernels.torch_ops import Activation


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary positions of one kind of layer: the base frequencies and how they are stretched.

    `scaling` None is plain RoPE. `rotary_dim` counts the dimensions of a head that turn.
    """

    theta: float
    rotary_dim: int
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """A base that grows with the context past `max_position` (dynamic NTK)."""

    factor: float
    max_position: int


@dataclass(frozen=True)
class YarnScaling:
    """High frequencies kept, low ones divided by `factor`, a ramp between (YaRN, 2309.00071)."""

    factor: float
    original_max_position: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    truncate: bool


@dataclass(frozen=True)
class LongRopeScaling:
    """A divisor per frequency: one list up to `original_max_position`, another for longer contexts
    (LongRoPE, 2402.13753)."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position: int
    attention_factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Long wavelengths stretched by `factor`, short ones kept, a smooth change between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


RopeScaling = LinearScaling | DynamicScaling | YarnScaling | LongRopeScaling | Llama3Scaling


@dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """A mixture of experts in place of the feed-forward network."""

    num_experts: int
    experts_per_token: int
    ffn_size: int
    renormalize: bool
    shared_ffn_size: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What may differ from layer to layer. `window`: tokens a token sees, itself included."""

    rope: RopeConfig
    window: int | None = None
    moe: MoeConfig | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """One decoder-only transformer.

    `context_length` is how long a context the model was made for; `longest_context` what its rope
    scaling can be asked for. `norm_offset`: norms multiply by 1 + weight, in float32.
    `sandwich_norms`: attention and feed-forward are normed after as well as before.
    """

    vocab_size: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    layers: tuple[LayerConfig, ...]
    context_length: int
    longest_context: int
    norm_eps: float
    attention_scale: float
    activation: Activation = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    norm_offset: bool = False
    sandwich_norms: bool = False
    embedding_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    tie_embeddings: bool = False
