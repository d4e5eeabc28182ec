"""What a config.json would say of the experts of a GGUF model."""

from __future__ import annotations

from collections.abc import Mapping

from novacron.models.gguf_metadata import GGUFMetadata
from novacron.models.gguf_model import GGUFModel

_SOFTMAX = 1  # of the ways to turn a router's scores into shares
_RENORMALIZED = ("llama", "qwen3moe")  # whose files do not say whether the chosen add up to one


def read_experts(file: GGUFModel, metadata: GGUFMetadata) -> Mapping[str, object]:
    """Nothing for a model without. Raises ModelLoadError."""
    if not metadata.num_experts:
        return {}
    metadata.refuse("expert_weights_scale", 0.0, 1.0)
    metadata.refuse("expert_gating_func", 0, _SOFTMAX)
    metadata.refuse("expert_group_count", 0, 1)
    renormalized = metadata.flag("expert_weights_norm", metadata.name in _RENORMALIZED)
    if metadata.name == "llama" and not renormalized:
        raise metadata.error("its experts' shares do not add up to one, which is not supported")
    shared = metadata.size("expert_shared_feed_forward_length", _shared_size(file))
    return {
        "num_local_experts": metadata.num_experts,
        "num_experts": metadata.num_experts,
        "num_experts_per_tok": metadata.size("expert_used_count"),
        "moe_intermediate_size": metadata.size(
            "expert_feed_forward_length", metadata.size("feed_forward_length")
        ),
        "shared_expert_intermediate_size": shared,
        "norm_topk_prob": renormalized,
    }


def _shared_size(file: GGUFModel) -> int:
    """Of the expert that all tokens share; 1, which nothing asks for, where there is none."""
    sizes = (
        info.shape[0]
        for name, info in file.tensors.items()
        if name.endswith(".ffn_up_shexp.weight")
    )
    return next(sizes, 1)
