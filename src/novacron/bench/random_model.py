"""A Hugging Face folder with a Llama model of random weights: for measuring speed, not answers.

Made without a download and without torch, the same for the same shape, seed and numpy. Weights are
drawn and written one by one, so a model may be larger than memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from novacron.bench.model_shapes import LlamaShape
from novacron.bench.random_tokenizer import SPECIAL_TOKENS, write_tokenizer
from novacron.errors import ConfigError

Dtype = Literal["bfloat16", "float16", "float32"]
_Weights = Sequence[tuple[str, tuple[int, ...]]]

DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")
_CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}  # as safetensors writes them
_SHARD_BYTES = 2 * 2**30
_INDEX = "model.safetensors.index.json"


def make_model(
    folder: Path,
    shape: LlamaShape,
    *,
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    shard_bytes: int = _SHARD_BYTES,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Write the model into `folder`, which must not hold one yet. Raises ConfigError.

    At most one weight is in memory at a time. `config.json` is written last: a folder that has one
    is complete.
    """
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} holds a model already; choose another folder or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, shape, dtype, seed, shard_bytes, progress)
    write_tokenizer(folder, shape.vocab_size, shape.max_position_embeddings)
    (folder / "generation_config.json").write_text(_json(_token_ids()))
    (folder / "config.json").write_text(_json(llama_config(shape, dtype)))


def _write_weights(
    folder: Path,
    shape: LlamaShape,
    dtype: Dtype,
    seed: int,
    shard_bytes: int,
    progress: Callable[[float], None],
) -> None:
    item_bytes = 4 if dtype == "float32" else 2
    shards = list(_shards(shape, item_bytes, shard_bytes))
    total_bytes = item_bytes * shape.num_parameters
    written_bytes, place, weight_map = 0, 0, {}
    for number, weights in enumerate(shards, start=1):
        name_of_file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / name_of_file).open("wb") as file:
            file.write(_header(weights, dtype, item_bytes))
            for name, size in weights:
                written_bytes += file.write(_encode(_draw(name, size, shape, seed, place), dtype))
                weight_map[name] = name_of_file
                place += 1
                progress(written_bytes / total_bytes)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / _INDEX).write_text(_json(index))


def _header(weights: _Weights, dtype: Dtype, item_bytes: int) -> bytes:
    """What stands before the weights in a safetensors file: where each lies, padded to 8 bytes."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, size in weights:
        end = start + item_bytes * math.prod(size)
        content[name] = {"dtype": _CODES[dtype], "shape": size, "data_offsets": (start, end)}
        start = end
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _shards(shape: LlamaShape, item_bytes: int, shard_bytes: int) -> Iterator[_Weights]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    filled_bytes = 0
    for name, size in shape.tensors():
        tensor_bytes = item_bytes * math.prod(size)
        if shard and filled_bytes + tensor_bytes > shard_bytes:
            yield shard
            shard, filled_bytes = [], 0
        shard.append((name, size))
        filled_bytes += tensor_bytes
    yield shard


def _draw(
    name: str, size: tuple[int, ...], shape: LlamaShape, seed: int, place: int
) -> NDArray[np.float32]:
    """One weight. Its generator is its own, so that neither shards nor dtype change it."""
    if len(size) == 1:
        return np.ones(size, dtype=np.float32)  # of a norm
    rng = np.random.Generator(np.random.PCG64([seed, place]))
    values = rng.standard_normal(size, dtype=np.float32)
    values *= _scale(name, size, shape)
    return values


def _scale(name: str, size: tuple[int, ...], shape: LlamaShape) -> float:
    """Keeps activations near one, and layers strong enough beside the embedding to be seen.

    A product of normalised inputs then has entries of variance one, and all layers together add
    about as much to the residual stream as the embedding put there: the next token depends on
    the context and not just on the last token, so greedy output does not fall into a loop at once.
    """
    if name == "model.embed_tokens.weight":
        return 1 / math.sqrt(shape.hidden_size) if shape.tie_word_embeddings else 1.0
    scale = 1 / math.sqrt(size[1])
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        scale *= _LAYER_GAIN / math.sqrt(shape.num_hidden_layers)
    return scale


_LAYER_GAIN = 2.0  # both kinds of layers put out less variance than they take in


def _encode(values: NDArray[np.float32], dtype: Dtype) -> bytes:
    if dtype == "float32":
        return values.tobytes()
    if dtype == "float16":
        return values.astype(np.float16).tobytes()
    bits = values.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)  # round to nearest, ties to even
    return (bits >> 16).astype(np.uint16).tobytes()


def llama_config(shape: LlamaShape, dtype: Dtype) -> dict[str, Any]:
    """What a config.json says of a model of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": 1e-5,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "torch_dtype": dtype,
        **_token_ids(),
    }


def _token_ids() -> dict[str, int]:
    return {
        "bos_token_id": SPECIAL_TOKENS.index("<s>"),
        "eos_token_id": SPECIAL_TOKENS.index("</s>"),
        "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
    }


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
