"""Writes a checkpoint as an ordinary Hugging Face folder in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from demo_training.model import DemoModel, ModelShape
from demo_training.tokenizer import BOS, CHAT_TEMPLATE, END, PAD, token_id
from demo_training.trainer import CHECKPOINT_NAME

MAX_BYTES = 20_000_000
WEIGHTS_NAME = "model.safetensors"
PREFIX = "model."


def load_model(checkpoint: Path) -> tuple[DemoModel, dict[str, Any]]:
    """The model of a checkpoint, not compiled, and the rest of the checkpoint."""
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    model = DemoModel(ModelShape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model.eval(), state


def read_exported_weights(folder: Path) -> dict[str, Tensor]:
    """Weights that `export_model` wrote, in float32, under the names of `DemoModel`."""
    weights = load_file(folder / WEIGHTS_NAME)
    return {name.removeprefix(PREFIX): weight.float() for name, weight in weights.items()}


def export_model(run: Path, tokenizer_file: Path, target: Path) -> None:
    """Write config, weights, tokenizer and chat template of the newest checkpoint to `target`.

    Leaves other files of the folder alone. Raises `ValueError` if the weights exceed `MAX_BYTES`.
    """
    model, _ = load_model(run / CHECKPOINT_NAME)
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    weights = {
        f"{PREFIX}{name}": weight.to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
    }
    size = sum(weight.nbytes for weight in weights.values())
    if size > MAX_BYTES:
        raise ValueError(f"weights take {size} bytes, more than the {MAX_BYTES} allowed")
    (target / WEIGHTS_NAME).write_bytes(save(weights, metadata={"format": "pt"}))
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    _write_json(target / "config.json", _model_config(model.shape, tokenizer))
    _write_json(target / "generation_config.json", _generation_config(tokenizer))
    _write_json(target / "tokenizer_config.json", _tokenizer_config(model.shape))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": token_id(tokenizer, BOS),
        "eos_token_id": token_id(tokenizer, END),
        "pad_token_id": token_id(tokenizer, PAD),
    }


def _model_config(shape: ModelShape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        **_token_ids(tokenizer),
    }


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    ids = _token_ids(tokenizer)
    return {**ids, "eos_token_id": [ids["eos_token_id"]], "do_sample": False}


def _tokenizer_config(shape: ModelShape) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.max_positions,
        "chat_template": CHAT_TEMPLATE,
    }
