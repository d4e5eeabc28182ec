from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": [1, 3],
    "dtype": "float32",
}


def llama_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "model.embed_tokens.weight": random(40, 16),
        "lm_head.weight": random(40, 16),
        "model.norm.weight": random(16),
    }
    for index in range(2):
        prefix = f"model.layers.{index}"
        tensors |= {
            f"{prefix}.input_layernorm.weight": random(16),
            f"{prefix}.post_attention_layernorm.weight": random(16),
            f"{prefix}.self_attn.q_proj.weight": random(16, 16),
            f"{prefix}.self_attn.k_proj.weight": random(8, 16),
            f"{prefix}.self_attn.v_proj.weight": random(8, 16),
            f"{prefix}.self_attn.o_proj.weight": random(16, 16),
            f"{prefix}.mlp.gate_proj.weight": random(24, 16),
            f"{prefix}.mlp.up_proj.weight": random(24, 16),
            f"{prefix}.mlp.down_proj.weight": random(16, 24),
        }
    return tensors


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """The weights of a Llama model that fits LLAMA_CONFIG; a test may change them."""
    return llama_tensors()


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes tensors and a config.json, with given fields replaced, as a model folder."""

    def write(tensors: dict[str, Tensor], *, num_files: int = 1, **fields: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA_CONFIG, **fields}))
        if num_files == 1:
            save_file(tensors, tmp_path / "model.safetensors")
            return tmp_path
        weight_map = {}
        for number in range(num_files):
            name = f"model-{number + 1:05}-of-{num_files:05}.safetensors"
            shard = dict(list(tensors.items())[number::num_files])
            save_file(shard, tmp_path / name)
            weight_map |= dict.fromkeys(shard, name)
        index = {"metadata": {}, "weight_map": weight_map}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        return tmp_path

    return write
