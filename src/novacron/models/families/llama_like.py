"""What the config.json files of all supported families have in common."""

from __future__ import annotations

import math
from typing import Any

from novacron.kernels.torch_ops import Activation
from novacron.models.decoder_config import (
    DecoderConfig,
    DynamicScaling,
    LayerConfig,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeConfig,
    RopeScaling,
    YarnScaling,
)
from novacron.models.hf_config import HFConfig

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
}


def llama_like(
    hf: HFConfig,
    *,
    layers: tuple[LayerConfig, ...],
    default_head_dim: int | None = None,
    default_activation: str = "silu",
    tied_by_default: bool = False,
    **differences: Any,
) -> DecoderConfig:
    """A DecoderConfig from the fields every family has; `differences` are further fields of it."""
    head_dim = read_head_dim(hf, default_head_dim)
    num_heads = hf.size("num_attention_heads")
    context_length, longest_context = _context_lengths(hf, layers)
    activation = hf.text("hidden_activation", hf.text("hidden_act", default_activation))
    if activation not in _ACTIVATIONS:
        raise hf.error(
            f"the activation '{activation}' is not supported; "
            f"supported: {', '.join(sorted(_ACTIVATIONS))}"
        )
    fields: dict[str, Any] = {
        "vocab_size": hf.size("vocab_size"),
        "hidden_size": hf.size("hidden_size"),
        "num_heads": num_heads,
        "num_kv_heads": hf.size("num_key_value_heads", num_heads),
        "head_dim": head_dim,
        "ffn_size": hf.size("intermediate_size"),
        "layers": layers,
        "context_length": context_length,
        "longest_context": longest_context,
        "norm_eps": hf.number("rms_norm_eps", 1e-6),
        "attention_scale": head_dim**-0.5,
        "activation": _ACTIVATIONS[activation],
        "tie_embeddings": hf.flag("tie_word_embeddings", tied_by_default),
    }
    config = DecoderConfig(**(fields | differences))
    if config.num_heads % config.num_kv_heads:
        raise hf.error(
            f"'num_attention_heads' ({config.num_heads}) is not a multiple of "
            f"'num_key_value_heads' ({config.num_kv_heads})"
        )
    return config


def read_head_dim(hf: HFConfig, default: int | None = None) -> int:
    if hf.has("head_dim") or default is not None:
        return hf.size("head_dim", default)
    return hf.size("hidden_size") // hf.size("num_attention_heads")


def same_layers(hf: HFConfig, **settings: Any) -> tuple[LayerConfig, ...]:
    """Layers that do not differ from each other."""
    return (LayerConfig(**settings),) * hf.size("num_hidden_layers")


def windows_by_layer(hf: HFConfig, window: int | None, slides: list[bool]) -> list[int | None]:
    """The window of each layer: from `layer_types` where the file has it, else from `slides`."""
    types = hf.texts("layer_types")
    if types:
        if len(types) != len(slides):
            raise hf.error(f"'layer_types' has {len(types)} entries for {len(slides)} layers")
        unknown = sorted(set(types) - {"sliding_attention", "full_attention"})
        if unknown:
            raise hf.error(f"'layer_types' holds {', '.join(unknown)}, which is not supported")
        slides = [kind == "sliding_attention" for kind in types]
    return [window if sliding else None for sliding in slides]


def read_rope(
    hf: HFConfig,
    *,
    default_theta: float = 10000.0,
    layer_type: str | None = None,
    default_head_dim: int | None = None,
) -> RopeConfig:
    """The rope of a model, or of one of its layer types where they differ."""
    values = hf.section("rope_parameters" if hf.has("rope_parameters") else "rope_scaling")
    if layer_type is not None and values.has(layer_type):
        values = values.section(layer_type)
    theta = values.number("rope_theta", hf.number("rope_theta", default_theta))
    partial = values.number("partial_rotary_factor", hf.number("partial_rotary_factor", 1.0))
    return RopeConfig(
        theta=theta,
        rotary_dim=int(read_head_dim(hf, default_head_dim) * partial),
        scaling=_read_scaling(hf, values),
    )


def _read_scaling(hf: HFConfig, values: HFConfig) -> RopeScaling | None:
    match values.text("rope_type", values.text("type", "default")):
        case "default" | "mrope":
            return None
        case "linear":
            return LinearScaling(values.number("factor"))
        case "dynamic":
            return DynamicScaling(values.number("factor"), hf.size("max_position_embeddings"))
        case "yarn":
            return _read_yarn(hf, values)
        case "longrope" | "su":
            return read_longrope(hf, values)
        case "llama3":
            return Llama3Scaling(
                factor=values.number("factor"),
                low_freq_factor=values.number("low_freq_factor"),
                high_freq_factor=values.number("high_freq_factor"),
                original_max_position=_original_max_position(hf, values),
            )
        case other:
            raise values.error(
                f"the rope type '{other}' is not supported; supported: default, linear, dynamic, "
                "yarn, longrope, llama3"
            )


def _original_max_position(hf: HFConfig, values: HFConfig) -> int:
    key = "original_max_position_embeddings"
    if hf.has(key):
        return hf.size(key)
    return values.size(key, hf.size("max_position_embeddings"))


def _read_yarn(hf: HFConfig, values: HFConfig) -> YarnScaling:
    original = _original_max_position(hf, values)
    factor = values.number("factor", hf.size("max_position_embeddings") / original)
    scale = values.optional_number("mscale")
    scale_all = values.optional_number("mscale_all_dim")
    if values.has("attention_factor"):
        amplitude = values.number("attention_factor")
    elif scale and scale_all:
        amplitude = _yarn_amplitude(factor, scale) / _yarn_amplitude(factor, scale_all)
    else:
        amplitude = _yarn_amplitude(factor, 1.0)
    return YarnScaling(
        factor=factor,
        original_max_position=original,
        attention_factor=amplitude,
        beta_fast=values.number("beta_fast", 32.0),
        beta_slow=values.number("beta_slow", 1.0),
        truncate=values.flag("truncate", True),
    )


def _yarn_amplitude(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def read_longrope(hf: HFConfig, values: HFConfig) -> LongRopeScaling:
    original = _original_max_position(hf, values)
    factor = values.number("factor", hf.size("max_position_embeddings") / original)
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongRopeScaling(
        short_factor=values.numbers("short_factor"),
        long_factor=values.numbers("long_factor"),
        original_max_position=original,
        attention_factor=values.number("attention_factor", usual),
    )


def _context_lengths(hf: HFConfig, layers: tuple[LayerConfig, ...]) -> tuple[int, int]:
    """How long a context the model was made for, and the longest its rope scaling allows."""
    made_for = longest = hf.size("max_position_embeddings")
    for layer in layers:
        match layer.rope.scaling:
            case LinearScaling(factor) | DynamicScaling(factor, _):
                longest = max(longest, int(hf.size("max_position_embeddings") * factor))
            case YarnScaling(factor, original):
                made_for = max(made_for, int(original * factor))
    return made_for, max(made_for, longest)
