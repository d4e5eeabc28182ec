"""Tiny checkpoints with random weights, one per model family, in the layout of real ones.

Made with `transformers`, which therefore is the judge of what they should compute. Needs the `dev`
extra. Weights are scaled so that activations stay near one and tokens differ clearly; norms and
biases are random too, so that leaving one out shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SiglipVisionConfig,
)

VOCAB_SIZE = 384
EOS_TOKEN_ID = 1

_TIED_EMBEDDING_SCALE = 0.3

_SIZES: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": EOS_TOKEN_ID,
    "pad_token_id": 2,
}


@dataclass(frozen=True)
class _Family:
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    settings: Mapping[str, Any]


FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(LlamaConfig, LlamaForCausalLM, {}),
    "mistral": _Family(MistralConfig, MistralForCausalLM, {"sliding_window": 24}),
    "qwen2": _Family(Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": _Family(Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "gemma2": _Family(
        Gemma2Config,
        Gemma2ForCausalLM,
        {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 24},
    ),
    "gemma3": _Family(
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {
            "head_dim": 16,
            "sliding_window": 24,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "phi3": _Family(Phi3Config, Phi3ForCausalLM, {"sliding_window": 24}),
    "mixtral": _Family(
        MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "qwen2_moe": _Family(
        Qwen2MoeConfig,
        Qwen2MoeForCausalLM,
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 96,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe": _Family(
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "norm_topk_prob": True,
        },
    ),
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TRAINING_TEXT = (
    "The quick brown fox jumps over the lazy dog. Paris is the capital of France.",
    'Hello, how are you today? I am fine, thank you. 0123456789 {"key": [1, 2.5, true]}',
    "def main() -> None:\n    print('hello world')\n",
)


def make_tiny_model(
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> Path:
    """Write a checkpoint of `family` (a key of FAMILIES) with a tokenizer into `folder`.

    `overrides` replace fields of the family's transformers config. A small `max_shard_size` gives
    a sharded checkpoint.
    """
    kind = FAMILIES[family]
    config = kind.config(**{**_SIZES, **kind.settings, **overrides})
    _save(kind.model(config), folder, seed=seed, dtype=dtype, max_shard_size=max_shard_size)
    return folder


def make_tiny_gemma3_multimodal(folder: Path, *, seed: int = 0) -> Path:
    """A Gemma 3 checkpoint with a vision tower, as the 4B and larger ones are published."""
    text = Gemma3TextConfig(**{**_SIZES, **FAMILIES["gemma3"].settings})
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
    _save(model, folder, seed=seed, dtype=torch.float32, max_shard_size="1GB")
    return folder


def _save(
    model: PreTrainedModel, folder: Path, *, seed: int, dtype: torch.dtype, max_shard_size: str
) -> None:
    _randomise(model, torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    write_tiny_tokenizer(folder)


def write_tiny_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer of VOCAB_SIZE tokens with a ChatML template."""
    specials = ["<|bos|>", "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": specials[0],
        "eos_token": specials[EOS_TOKEN_ID],
        "pad_token": specials[2],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


@torch.no_grad()
def _randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:  # a bias or the weight of a norm: keep its meaning, perturb it
            parameter.add_(noise, alpha=0.1)
        else:
            parameter.copy_(noise / math.sqrt(parameter.shape[-1]))
    if model.config.tie_word_embeddings:  # else every token would mostly predict itself
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, torch.nn.Embedding)
        embedding.weight.mul_(_TIED_EMBEDDING_SCALE)
