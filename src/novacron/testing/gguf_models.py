"""GGUF files of tiny models, and what the `gguf` package reads out of them. Needs the `dev` extra.

Files are written with that package, which llama.cpp publishes, and it is the judge of what they
hold. It cannot round weights into the K formats, so in these a model gets random blocks.
"""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2moe",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
}
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_K_SCALES: Mapping[str, tuple[int, ...]] = {  # where a block has its scales, as float16
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip
_WEIGHT_SIZE = 0.06

Change = Callable[[gguf.GGUFWriter], None]


def write_gguf(
    folder: Path,
    target: Path,
    held_as: str = "F32",
    *,
    also: Change = lambda writer: None,
    tokenizer: Change | None = None,
    tensors_per_file: int = 0,
) -> Path:
    """The model of a Hugging Face folder as a GGUF file, its matrices as `held_as`; `also` may add
    metadata and tensors, and `tokenizer` adds one in place of the folder's. With `tensors_per_file`
    it becomes several, of which the first is returned."""
    config = json.loads((folder / "config.json").read_text())
    architecture = _ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(str(target), architecture, split_max_tensors=tensors_per_file)
    _add_sizes(writer, config)
    _add_experts(writer, config)
    if tokenizer is None:
        _add_tokenizer(writer, folder, config)
    else:
        tokenizer(writer)
    kind = gguf.GGMLQuantizationType[held_as]
    generator = np.random.default_rng(0)
    for name, tensor in _merged(_tensors(folder)).items():
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
    if not tensors_per_file:
        return target
    return next(target.parent.glob(f"{target.stem}-00001-of-*.gguf"))


def dequantized_folder(source: Path, like: Path, target: Path) -> Path:
    """The weights of a GGUF file as the gguf package reads them, in a Hugging Face folder that is
    otherwise `like` another."""
    shutil.copytree(like, target, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((like / "config.json").read_text())
    architecture = _ARCHITECTURES[config["architectures"][0]]
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    tensors = {}
    for name, before in _tensors(like).items():
        tensor = found[_given_name(_EXPERT.sub(".experts.", name), architecture)]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(size) for size in tensor.shape[::-1]])
        if (expert := _EXPERT.search(name)) is not None:
            values = values[int(expert[1])]
        if architecture == "llama":
            values = _in_halves(values, _num_heads(name, config))
        tensors[name] = torch.tensor(values).reshape(before.shape)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def sentencepiece_pieces(tokenizer: Any) -> Change:
    """What a GGUF file says of a tokenizer in the style of SentencePiece, from tiny_tokenizers."""
    description = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    ranks = {"".join(merge): rank for rank, merge in enumerate(description["model"]["merges"])}
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {added["content"] for added in description["added_tokens"]}

    def kind_of(piece: str) -> gguf.TokenType:
        if piece == "<unk>":
            return gguf.TokenType.UNKNOWN
        if piece in special:
            return gguf.TokenType.CONTROL
        return gguf.TokenType.BYTE if piece.startswith("<0x") else gguf.TokenType.NORMAL

    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(pieces)
        writer.add_token_scores([-float(ranks.get(piece, 10**6)) for piece in pieces])
        writer.add_token_types([kind_of(piece) for piece in pieces])
        writer.add_bos_token_id(vocabulary["<s>"])
        writer.add_eos_token_id(vocabulary["</s>"])
        writer.add_unk_token_id(vocabulary["<unk>"])
        writer.add_add_bos_token(True)

    return change


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _merged(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With one tensor for all experts of a layer, named without their numbers."""
    merged: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        expert = _EXPERT.search(name)
        place = 0 if expert is None else int(expert[1])
        merged.setdefault(_EXPERT.sub(".experts.", name), []).append((place, tensor))
    return {
        name: torch.stack([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])
        if ".experts." in name
        else parts[0][1]
        for name, parts in merged.items()
    }


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
    num_blocks = math.prod(shape) // block_values
    blocks = generator.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)
    scale = 2.0**-10
    for _ in range(2):  # values grow with the scale: the second one is right
        for place in _K_SCALES[kind.name]:
            blocks[:, place : place + 2] = np.array([scale], np.float16).view(np.uint8)
        scale *= _WEIGHT_SIZE / float(gguf.dequantize(blocks, kind).std())
    return blocks.reshape(*shape[:-1], -1)


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


def _add_experts(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    num_experts = config.get("num_local_experts", config.get("num_experts"))
    if num_experts is None:
        return
    writer.add_expert_count(num_experts)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


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
