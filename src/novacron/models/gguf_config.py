"""From the metadata of a GGUF file to what its config.json would say, so that families read both
alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from novacron.errors import ModelLoadError, UnsupportedModel
from novacron.models.gguf_file import GGUFFile
from novacron.models.gguf_tensors import read_rows
from novacron.models.hf_config import HFConfig

ROPE_FACTORS = "rope_freqs.weight"
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class _Architecture:
    """`has_pairs`: rows of queries and keys that turn together lie side by side in the file."""

    hugging_face_name: str
    has_pairs: bool


_ARCHITECTURES = {
    "llama": _Architecture("LlamaForCausalLM", has_pairs=True),
    "qwen2": _Architecture("Qwen2ForCausalLM", has_pairs=False),
    "qwen3": _Architecture("Qwen3ForCausalLM", has_pairs=False),
}


def read_gguf_config(file: GGUFFile) -> HFConfig:
    """Raises ModelLoadError; UnsupportedModel for an architecture that is not known here."""
    metadata = _Metadata(file)
    metadata.refuse_parts()
    metadata.refuse("expert_count", 0)
    vocab_size, hidden_size = _vocabulary(file, metadata)
    return HFConfig(
        {
            "architectures": [metadata.architecture.hugging_face_name],
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
            "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
            "tie_word_embeddings": _OUTPUT not in file.tensors,
        },
        str(file.path),
    )


def paired_head_dim(file: GGUFFile) -> int | None:
    """The size of the heads whose rows lie in pairs that turn together; None if none do."""
    metadata = _Metadata(file)
    return metadata.head_dim() if metadata.architecture.has_pairs else None


class _Metadata:
    """Typed reading of the keys that begin with the name of the architecture."""

    def __init__(self, file: GGUFFile) -> None:
        self._values = HFConfig(file.metadata, str(file.path))
        self.error: Callable[[str], ModelLoadError] = self._values.error
        self.name = self._values.text("general.architecture")
        if self.name not in _ARCHITECTURES:
            raise UnsupportedModel(
                f"{file.path}: the architecture '{self.name}' is not supported in a GGUF file. "
                f"Supported: {', '.join(_ARCHITECTURES)}. Of others, take the Hugging Face folder."
            )
        self.architecture = _ARCHITECTURES[self.name]

    def has(self, key: str) -> bool:
        return self._values.has(self._full(key))

    def size(self, key: str, default: int | None = None) -> int:
        return self._values.size(self._full(key), default)

    def number(self, key: str, default: float | None = None) -> float:
        """The shortest decimal number that the file's float32 can have been written from."""
        value = self._values.number(self._full(key), default)
        with np.errstate(over="ignore"):
            rounded = np.float32(value)
        if not np.isfinite(rounded):
            raise self.error(f"'{self._full(key)}' is {value}, which is no usable number")
        return float(str(rounded))

    def text(self, key: str, default: str) -> str:
        return self._values.text(self._full(key), default)

    def head_dim(self) -> int:
        """Of queries, keys and values alike, all of whose dimensions turn, in pairs."""
        heads = self.size("attention.head_count")
        head_dim = self.size("attention.key_length", self.size("embedding_length") // heads)
        if head_dim % 2:
            raise self.error(f"its heads have {head_dim} dimensions, which make no pairs")
        for key in ("attention.value_length", "rope.dimension_count"):
            if self.size(key, head_dim) != head_dim:
                raise self.error(
                    f"'{self._full(key)}' is {self.size(key)} where heads have {head_dim} "
                    "dimensions, which is not supported"
                )
        return head_dim

    def refuse(self, key: str, *harmless: float) -> None:
        if self.has(key) and self.number(key) not in harmless:
            raise self.error(f"'{self._full(key)}' is {self.number(key)}, which is not supported")

    def refuse_parts(self) -> None:
        num_parts = self._values.integer("split.count", 1)
        if num_parts > 1:
            raise self.error(
                f"the model is split into {num_parts} files, which is not supported. Join them "
                "with llama-gguf-split --merge"
            )

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}"


def _vocabulary(file: GGUFFile, metadata: _Metadata) -> tuple[int, int]:
    """Its size, and the hidden size, as the metadata and the embedding agree on."""
    hidden_size = metadata.size("embedding_length")
    shape = file.tensors[_EMBEDDING].shape if _EMBEDDING in file.tensors else ()
    if len(shape) != 2 or shape[1] != hidden_size:
        raise metadata.error(
            f"the tensor '{_EMBEDDING}' has the shape {list(shape)}, not "
            f"[vocabulary, {hidden_size}]"
        )
    return shape[0], hidden_size


def _num_layers(file: GGUFFile, metadata: _Metadata) -> int:
    num_layers = metadata.size("block_count")
    last = f"blk.{num_layers - 1}.attn_norm.weight"
    if last not in file.tensors:  # asked here, because memory is taken for each layer
        raise metadata.error(f"it claims to have {num_layers} layers, but '{last}' is missing")
    return num_layers


def _rope_scaling(file: GGUFFile, metadata: _Metadata) -> Mapping[str, object] | None:
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


def _divided_frequencies(file: GGUFFile, metadata: _Metadata) -> Mapping[str, object]:
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


def _yarn(metadata: _Metadata, factor: float) -> Mapping[str, object]:
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
