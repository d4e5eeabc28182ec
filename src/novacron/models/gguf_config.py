"""From the metadata of a GGUF file to what its config.json would say, so that families read both
alike."""

from __future__ import annotations

from collections.abc import Mapping

from novacron.models.gguf_experts import read_experts
from novacron.models.gguf_metadata import GGUFMetadata
from novacron.models.gguf_model import GGUFModel
from novacron.models.gguf_tensors import read_rows
from novacron.models.hf_config import HFConfig

ROPE_FACTORS = "rope_freqs.weight"
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


def read_gguf_config(file: GGUFModel) -> HFConfig:
    """Raises ModelLoadError; UnsupportedModel for an architecture that is not known here."""
    metadata = GGUFMetadata(file)
    vocab_size, hidden_size = _vocabulary(file, metadata)
    return HFConfig(
        {
            "architectures": [metadata.hugging_face_name],
            "model_type": metadata.name,
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": metadata.size("feed_forward_length"),
            "num_hidden_layers": _num_layers(file, metadata),
            "num_attention_heads": metadata.size("attention.head_count"),
            "num_key_value_heads": metadata.size(
                "attention.head_count_kv", metadata.size("attention.head_count")
            ),
            "head_dim": metadata.head_dim(),
            "max_position_embeddings": metadata.size("context_length"),
            "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
            "rope_theta": metadata.number("rope.freq_base", 10000.0),
            "rope_scaling": _rope_scaling(file, metadata),
            "attention_bias": "blk.0.attn_q.bias" in file.tensors,
            "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
            "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
            "tie_word_embeddings": _OUTPUT not in file.tensors,
            **read_experts(file, metadata),
        },
        str(file.path),
    )


def _vocabulary(file: GGUFModel, metadata: GGUFMetadata) -> tuple[int, int]:
    """Its size, and the hidden size, as the metadata and the embedding agree on."""
    hidden_size = metadata.size("embedding_length")
    shape = file.tensors[_EMBEDDING].shape if _EMBEDDING in file.tensors else ()
    if len(shape) != 2 or shape[1] != hidden_size:
        raise metadata.error(
            f"the tensor '{_EMBEDDING}' has the shape {list(shape)}, not "
            f"[vocabulary, {hidden_size}]"
        )
    return shape[0], hidden_size


def _num_layers(file: GGUFModel, metadata: GGUFMetadata) -> int:
    num_layers = metadata.size("block_count")
    last = f"blk.{num_layers - 1}.attn_norm.weight"
    if last not in file.tensors:  # asked here, because memory is taken for each layer
        raise metadata.error(f"it claims to have {num_layers} layers, but '{last}' is missing")
    return num_layers


def _rope_scaling(file: GGUFModel, metadata: GGUFMetadata) -> Mapping[str, object] | None:
    """As in a config.json. Llama 3.1 and later have no metadata for theirs, but the divisor of each
    frequency that follows from it."""
    if ROPE_FACTORS in file.tensors:
        return _divided_frequencies(file, metadata)
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 1.0))
    if factor < 0:
        raise metadata.error(f"the factor of its rope scaling is {factor}, a negative number")
    match metadata.text("rope.scaling.type", "linear"):
        case "none":
            return None
        case "linear":
            return {"rope_type": "linear", "factor": factor} if factor not in (0.0, 1.0) else None
        case "yarn":
            return _yarn(metadata, factor or 1.0)
        case other:
            raise metadata.error(
                f"the rope scaling '{other}' is not supported; supported: none, linear, yarn"
            )


def _divided_frequencies(file: GGUFModel, metadata: GGUFMetadata) -> Mapping[str, object]:
    shape, expected = file.tensors[ROPE_FACTORS].shape, (metadata.head_dim() // 2,)
    if shape != expected:
        raise metadata.error(
            f"the tensor '{ROPE_FACTORS}' has the shape {list(shape)}, not {list(expected)}"
        )
    divisors = read_rows(file, ROPE_FACTORS, slice(None)).tolist()
    if not all(divisor > 0 for divisor in divisors):
        raise metadata.error(f"the tensor '{ROPE_FACTORS}' holds numbers that are not positive")
    return {
        "rope_type": "longrope",
        "short_factor": divisors,
        "long_factor": divisors,
        "attention_factor": 1.0,
    }


def _yarn(metadata: GGUFMetadata, factor: float) -> Mapping[str, object]:
    metadata.refuse("rope.scaling.yarn_ext_factor", 1.0)
    metadata.refuse("rope.scaling.yarn_log_multiplier", 0.0)
    metadata.refuse("rope.scaling.attn_factor", 1.0)
    optional = {
        "attention_factor": "rope.scaling.yarn_attn_factor",
        "beta_fast": "rope.scaling.yarn_beta_fast",
        "beta_slow": "rope.scaling.yarn_beta_slow",
    }
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.size(
            "rope.scaling.original_context_length", metadata.size("context_length")
        ),
        **{name: metadata.number(key) for name, key in optional.items() if metadata.has(key)},
    }
