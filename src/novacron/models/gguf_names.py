"""What GGUF files call the tensors of the architectures that use Llama's names."""

from __future__ import annotations

from collections.abc import Iterable

_OF_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hugging_face_names(names: Iterable[str]) -> dict[str, str]:
    """From Hugging Face's names to these, for all of `names`. Those that are not known here keep
    theirs, so that loading refuses them by name."""
    return {_hugging_face_name(name): name for name in names}


def _hugging_face_name(name: str) -> str:
    match name.split("."):
        case ["blk", layer, part, kind] if part in _OF_LAYER:
            return f"model.layers.{layer}.{_OF_LAYER[part]}.{kind}"
        case [part, kind] if part in _OF_MODEL:
            return f"{_OF_MODEL[part]}.{kind}"
        case _:
            return name
