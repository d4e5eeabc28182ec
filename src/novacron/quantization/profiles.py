"""Named choices of a level for each component, as data.

A component that is missing is held as the model has it. Wide levels (fp32, fp16, bf16) are what a
profile asks for at least; resolution.py says what a machine makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from novacron.errors import ConfigError
from novacron.quantization.components import Component
from novacron.quantization.levels import Level

Profile = Mapping[Component, Level]

_NAMES = ("memory_critical", "balanced", "quality_critical")
_TABLE: Mapping[Component, tuple[Level, Level, Level]] = {
    "embedding": ("int8", "fp16", "fp32"),
    "attention_qkv": ("int4", "int8", "fp16"),
    "attention_out": ("int8", "fp16", "fp16"),
    "ffn_gate": ("int4", "int8", "fp16"),
    "ffn_up": ("int4", "int8", "fp16"),
    "ffn_down": ("int4", "int8", "fp16"),
    "norm": ("fp16", "fp16", "fp32"),
    "output_head": ("fp16", "fp16", "fp32"),
    "kv_keys": ("int8", "fp16", "fp16"),
    "kv_values": ("int4", "int8", "fp16"),
    "activations": ("int8", "fp16", "fp16"),
}

PROFILES: Mapping[str, Profile] = {
    name: {component: levels[column] for component, levels in _TABLE.items()}
    for column, name in enumerate(_NAMES)
}


def _uniform(layers: Level, vocabulary: Level | None, inputs: Level | None) -> Profile:
    """One level for all matrices of layers. The KV cache and norms have settings of their own."""
    profile: dict[Component, Level] = dict.fromkeys(
        ("attention_qkv", "attention_out", "ffn_gate", "ffn_up", "ffn_down"), layers
    )
    if vocabulary is not None:
        profile |= {"embedding": vocabulary, "output_head": vocabulary}
    if inputs is not None:
        profile["activations"] = inputs
    return profile


# The rows of the vocabulary are what the model reads and the scores that it writes: they have eight
# bits where layers have four, and are left alone in fp8, as checkpoints in fp8 do.
UNIFORM: Mapping[str, Profile] = {
    "none": {},
    "fp32": _uniform("fp32", "fp32", None),
    "fp16": _uniform("fp16", "fp16", None),
    "bf16": _uniform("bf16", "bf16", None),
    "fp8": _uniform("fp8", None, None),
    "int8": _uniform("int8", "int8", "int8"),
    "int4": _uniform("int4", "int8", "int8"),
}


def find_profile(name: str) -> Profile:
    """That of a profile's or a level's name. Raises ConfigError."""
    found = PROFILES.get(name) or UNIFORM.get(name)
    if found is None and name not in UNIFORM:
        choices = ", ".join((*UNIFORM, *PROFILES))
        raise ConfigError(f"quantization is '{name}': choose one of {choices}.")
    return found or {}
