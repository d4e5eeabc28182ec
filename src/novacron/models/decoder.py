"""The one decoder that every family shares: what differs between families is in DecoderConfig.

Built by `build_decoder`, which leaves the weights unset; loading.py fills them. Called by
runner/model_runner.py. Knows nothing of requests or files.

Shapes: T tokens of the step, D hidden size, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from novacron.kernels.metadata import AttentionMetadata, KVLayer
from novacron.kernels.table import AttentionPlan, Kernels, Rotation
from novacron.models.decoder_config import DecoderConfig, LayerConfig
from novacron.models.layers.attention import Attention
from novacron.models.layers.embedding import VocabEmbedding
from novacron.models.layers.feed_forward import FeedForward
from novacron.models.layers.matrix import Matrix, Role, matrices_of
from novacron.models.layers.moe import MixtureOfExperts
from novacron.models.layers.norm import RMSNorm
from novacron.models.layers.rope import Angles, rope_angles
from novacron.models.weight_precision import WeightPrecision, described, identity_of
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


class Decoder(nn.Module):
    """Token ids in, hidden states and logits out; keys and values live in paged blocks."""

    def __init__(
        self,
        config: DecoderConfig,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
        precision: WeightPrecision,
    ) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels

        def vocabulary(role: Role) -> VocabEmbedding:
            return VocabEmbedding(
                config.vocab_size, config.hidden_size, group, communicator, role=role
            )

        self.embedding = vocabulary("output" if config.tie_embeddings else "lookup")
        self.layers = tuple(
            DecoderLayer(config, layer, group, communicator, kernels) for layer in config.layers
        )
        self.registered_layers = nn.ModuleList(self.layers)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, kernels, offset=config.norm_offset)
        self.output = self.embedding if config.tie_embeddings else vocabulary("output")
        self.windows = tuple(dict.fromkeys(layer.window for layer in config.layers))
        self.ropes = tuple(dict.fromkeys(layer.rope for layer in config.layers))
        self.angles: tuple[Angles, ...] = ()
        self.dtype = self.embedding.matrix.dtype
        self.embedding_scale = _rounded(config.embedding_scale, self.dtype)
        self.num_parameters = sum(parameter.numel() for parameter in self.parameters())
        self.matrices = matrices_of(self)
        self._choose_precision(precision)
        self.precision_identity = identity_of(self.matrices)
        self.precision = described(self.matrices, self.dtype, precision.levels.base)
        self.weight_bytes = sum(parameter.nbytes for parameter in self.parameters()) + sum(
            matrix.final_bytes(kernels) - matrix.weight.nbytes for matrix in self.matrices
        )

    def _choose_precision(self, precision: WeightPrecision) -> None:
        for slot in self.weight_slots():
            if slot.matrix is not None:
                slot.matrix.names += (slot.name,)
        for matrix in self.matrices:
            matrix.quantization = precision.quantization_of(
                matrix, self.kernels.rounded_levels, is_tied=self.is_tied(matrix)
            )

    def is_tied(self, matrix: Matrix) -> bool:
        """Whether it is the embedding and gives the logits, too."""
        return matrix is self.embedding.matrix and matrix is self.output.matrix

    def set_context(self, max_model_len: int) -> None:
        """Fix the longest context, on which the frequencies of some rope scalings depend."""
        device = self.norm.weight.device
        self.angles = tuple(
            rope_angles(rope, max_model_len, dtype=self.dtype, device=device) for rope in self.ropes
        )

    def forward(
        self,
        token_ids_T: Tensor,
        positions_T: Tensor,
        step: AttentionMetadata,
        cache: Sequence[KVLayer],
    ) -> Tensor:
        """Hidden states after the last norm, [T, D]. Writes the step's keys and values."""
        x_TD = self.embedding(token_ids_T)
        if self.embedding_scale is not None:
            self.kernels.scale(x_TD, self.embedding_scale)
        plans = {window: self.kernels.plan_attention(step, window) for window in self.windows}
        turns = {
            rope: self.kernels.plan_rotation(positions_T, *angles)
            for rope, angles in zip(self.ropes, self.angles, strict=True)
        }
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            kind = layer.config
            x_TD = layer(x_TD, turns[kind.rope], plans[kind.window], layer_cache)
        normed_TD: Tensor = self.norm(x_TD)
        return normed_TD

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Scores of all tokens, [R, V] in float32, complete on rank 0."""
        return self.output.logits(hidden_RD, self._cap)

    def _cap(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        return logits if cap is None else self.kernels.softcap(logits, cap)

    def weight_slots(self) -> Iterator[WeightSlot]:
        """Every tensor this rank wants from the checkpoint, under its name in a Llama one."""
        yield from self.embedding.weight_slots("model.embed_tokens")
        for index, layer in enumerate(self.layers):
            yield from layer.weight_slots(f"model.layers.{index}")
        yield from self.norm.weight_slots("model.norm")
        if self.output is not self.embedding:
            yield from self.output.weight_slots("lm_head")


def _rounded(embedding_scale: float | None, dtype: torch.dtype) -> float | None:
    """The scale as the weights' precision holds it, which is what Gemma was trained with."""
    if embedding_scale is None:
        return None
    return float(torch.tensor(embedding_scale, dtype=dtype, device="cpu"))


def build_decoder(
    config: DecoderConfig,
    group: ParallelGroup,
    communicator: Communicator,
    kernels: Kernels,
    *,
    precision: WeightPrecision | None = None,
    dtype: torch.dtype,
    device: torch.device,
) -> Decoder:
    """This rank's part of the decoder, its weights not set: load_weights brings them, rounded as
    `precision` says, or not at all.

    On the device "meta" it takes no memory, and tells how much it would.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # what layers create their weights in
    try:
        with device:
            return Decoder(config, group, communicator, kernels, precision or WeightPrecision())
    finally:
        torch.set_default_dtype(usual)
