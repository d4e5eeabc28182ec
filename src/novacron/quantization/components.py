"""The parts of a model that a profile has a level for."""

from __future__ import annotations

import re
from typing import Literal

Component = Literal[
    "embedding",
    "attention_qkv",
    "attention_out",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "norm",
    "output_head",
    "kv_keys",
    "kv_values",
    "activations",
]

_ENDINGS: dict[str, Component] = {
    "embed_tokens.weight": "embedding",
    "q_proj.weight": "attention_qkv",
    "k_proj.weight": "attention_qkv",
    "v_proj.weight": "attention_qkv",
    "o_proj.weight": "attention_out",
    "gate_proj.weight": "ffn_gate",
    "up_proj.weight": "ffn_up",
    "down_proj.weight": "ffn_down",
    "lm_head.weight": "output_head",
}
MATRICES = frozenset(_ENDINGS.values())  # the components that are
_LAST_TWO = re.compile(r"[^.]+\.[^.]+$")


def component_of(name: str) -> Component | None:
    """The component of a matrix by its name in a Llama checkpoint, experts included. None for
    those that no profile rounds: a router chooses all else, and is small."""
    found = _LAST_TWO.search(name)
    return None if found is None else _ENDINGS.get(found[0])
