"""Compares an exported folder, as transformers loads it, with the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo_training.export import load_model
from demo_training.tokenizer import ChatEncoder
from demo_training.trainer import CHECKPOINT_NAME
from novacron.demo.examples import Message

_CHATS = (
    (Message("user", "What is the capital of France?"),),
    (
        Message("system", "You are a helpful assistant."),
        Message("user", "Hello!"),
        Message("assistant", "Hello! How can I help you?"),
        Message("user", "What is 47 + 38?"),
    ),
)


def largest_logit_difference(run: Path, folder: Path) -> float:
    """Largest float32 difference over a few chats, both sides with bfloat16 weights.

    Raises `ValueError` if the chat template gives other tokens than training saw.
    """
    trained, _ = load_model(run / CHECKPOINT_NAME)
    for parameter in trained.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)
    exported: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    encoder = ChatEncoder.load(folder / "tokenizer.json")
    worst = 0.0
    for chat in _CHATS:
        messages = [message._asdict() for message in chat]
        chosen = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
        ids = list(chosen["input_ids"])
        if ids != encoder.prompt(chat):
            raise ValueError(f"chat template gives {ids}, training used {encoder.prompt(chat)}")
        with torch.no_grad():
            batch = torch.tensor([ids])
            ours = trained.logits(trained.hidden(batch))
            worst = max(worst, float((ours - exported(batch).logits).abs().max()))
    return worst
