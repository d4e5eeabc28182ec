"""GGUF files of tiny models, and what the `gguf` package reads out of them. Needs the `dev` extra.

Files are written with that package, which llama.cpp publishes, and it is the judge of what they
hold. It cannot round weights into the K formats, so in these a model gets random blocks.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

_ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
                  "Qwen3ForCausalLM": "qwen3"}  # fmt: skip
_K_SCALES: Mapping[str, tuple[int, ...]] = {  # where a block has its scales, as float16
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)
}  # fmt: skip
_WEIGHT_SIZE = 0.06

Change = Callable[[gguf.GGUFWriter], None]


def write_gguf(
    folder: Path, target: Path, held_as: str = "F32", *, also: Change = lambda writer: None
) -> Path:
    """The model of a Hugging Face folder as a GGUF file, its matrices as `held_as`; `also` may add
    metadata and tensors."""
    config = json.loads((folder / "config.json").read_text())
    architecture = _ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(str(target), architecture)
    _add_sizes(writer, config)
    _add_tokenizer(writer, folder, config)
    kind = gguf.GGMLQuantizationType[held_as]
    generator = np.random.default_rng(0)
    for name, tensor in _tensors(folder).items():
        values = tensor.float().numpy()
        if architecture == "llama":
            values = _in_pairs(values, _num_heads(name, config))
        given_name = _given_name(name, architecture)
        if tensor.dim() == 1 or held_as == "F32":
            writer.add_tensor(given_name, values)
        elif held_as in _K_SCALES:
            writer.add_tensor(given_name, _random_blocks(kind, values.shape, generator),
                              raw_dtype=kind)  # fmt: skip
        else:
            writer.add_tensor(given_name, gguf.quantize(values, kind), raw_dtype=kind)
    also(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def dequantized_folder(source: Path, like: Path, target: Path) -> Path:
    """The weights of a GGUF file as the gguf package reads them, in a Hugging Face folder that is
    otherwise `like` another."""
    shutil.copytree(like, target, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((like / "config.json").read_text())
    architecture = _ARCHITECTURES[config["architectures"][0]]
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    tensors = {}
    for name in _tensors(like):
        tensor = found[_given_name(name, architecture)]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(size) for size in tensor.shape[::-1]])
        if architecture == "llama":
            values = _in_halves(values, _num_heads(name, config))
        tensors[name] = torch.tensor(values)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@functools.cache  # the map is slow to make
def _given_name(name: str, architecture: str) -> str:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], 99)
    found = names.get_name(name, (".weight", ".bias"))
    assert found is not None, name
    return found


def _num_heads(name: str, config: Mapping[str, Any]) -> int:
    """Of a tensor whose rows turn with the position; else 0."""
    if ".q_proj." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".k_proj." in name else 0


def _in_pairs(values: NDArray[Any], num_heads: int) -> NDArray[Any]:
    if not num_heads:
        return values
    halves = values.reshape(num_heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def _in_halves(values: NDArray[Any], num_heads: int) -> NDArray[Any]:
    if not num_heads:
        return values
    pairs = values.reshape(num_heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _random_blocks(
    kind: gguf.GGMLQuantizationType, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Blocks of any bits whose scales give weights of the usual size."""
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    num_blocks = shape[0] * shape[1] // block_values
    blocks = generator.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    scale = 2.0**-10
    for _ in range(2):  # values grow with the scale: the second one is right
        for place in _K_SCALES[kind.name]:
            blocks[:, place : place + 2] = np.array([scale], np.float16).view(np.uint8)
        scale *= _WEIGHT_SIZE / float(gguf.dequantize(blocks, kind).std())
    return blocks.reshape(shape[0], -1)


def _add_sizes(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    special = {added["id"] for added in tokenizer["added_tokens"] if added["special"]}
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [gguf.TokenType.CONTROL if place in special else gguf.TokenType.NORMAL
             for place in range(len(pieces))]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])
