"""One layer of the decoder.

Shapes: T tokens of the step, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from novacron.kernels.metadata import KVLayer
from novacron.kernels.table import AttentionPlan, Kernels, Rotation
from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.layers.attention import Attention
from novacron.models.layers.feed_forward import FeedForward
from novacron.models.layers.moe import MixtureOfExperts
from novacron.models.layers.norm import RMSNorm
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each added to the residual stream, which is changed in place."""

    def __init__(
        self,
        config: DecoderConfig,
        layer: LayerConfig,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
    ) -> None:
        super().__init__()
        self.config = layer
        self.attention = Attention(config, group, communicator, kernels)
        self.feed_forward: FeedForward | MixtureOfExperts
        if layer.moe is None:
            self.feed_forward = FeedForward(
                config.hidden_size,
                config.ffn_size,
                config.activation,
                group,
                communicator,
                kernels,
                bias=config.ffn_bias,
            )
        else:
            self.feed_forward = MixtureOfExperts(
                config.hidden_size, layer.moe, config.activation, group, communicator, kernels
            )

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, config.norm_eps, kernels, offset=config.norm_offset)

        self.attention_norm, self.feed_forward_norm = norm(), norm()
        self.attention_post_norm = norm() if config.sandwich_norms else None
        self.feed_forward_post_norm = norm() if config.sandwich_norms else None

    def forward(
        self, x_TD: Tensor, rotate: Rotation, plan: AttentionPlan, cache: KVLayer
    ) -> Tensor:
        normed = self.attention_norm(x_TD)
        if self.attention_post_norm is None:
            self.attention(normed, rotate, plan, cache, add_to=x_TD)
        else:
            seen = self.attention(normed, rotate, plan, cache)
            self.attention_post_norm(seen, add_to=x_TD)
        return self.feed(x_TD)

    def feed(self, x_TD: Tensor) -> Tensor:
        """The second half, of each token for itself."""
        normed = self.feed_forward_norm(x_TD)
        if self.feed_forward_post_norm is None:
            self.feed_forward(normed, add_to=x_TD)
        else:
            self.feed_forward_post_norm(self.feed_forward(normed), add_to=x_TD)
        return x_TD

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        yield from self.attention_norm.weight_slots(f"{prefix}.input_layernorm")
        yield from self.attention.weight_slots(f"{prefix}.self_attn")
        yield from self.feed_forward.weight_slots(f"{prefix}.mlp")
        after_attention = f"{prefix}.post_attention_layernorm"
        if self.attention_post_norm is None or self.feed_forward_post_norm is None:
            yield from self.feed_forward_norm.weight_slots(after_attention)
            return
        yield from self.attention_post_norm.weight_slots(after_attention)
        yield from self.feed_forward_norm.weight_slots(f"{prefix}.pre_feedforward_layernorm")
        yield from self.feed_forward_post_norm.weight_slots(f"{prefix}.post_feedforward_layernorm")
