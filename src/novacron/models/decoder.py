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
from novacron.kernels.table import Kernels
from novacron.models.decoder_config import DecoderConfig
from novacron.models.decoder_layer import DecoderLayer
from novacron.models.layers.embedding import VocabEmbedding
from novacron.models.layers.matrix import Matrix, Role, matrices_of, weight_bytes
from novacron.models.layers.norm import RMSNorm
from novacron.models.layers.rope import Angles, rope_angles
from novacron.models.weight_precision import WeightPrecision, described, identity_of
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup
from novacron.parallel.stages import Stage, whole


class Decoder(nn.Module):
    """Token ids in, hidden states and logits out; keys and values live in paged blocks.

    Of several stages, each has its layers. The first one also has the vocabulary, for both ends:
    what the last one makes comes back to it. The norm after all layers is the last one's.
    """

    def __init__(
        self,
        config: DecoderConfig,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
        precision: WeightPrecision,
        stage: Stage,
    ) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.stage = stage
        self.dtype = torch.get_default_dtype()

        def vocabulary(role: Role) -> VocabEmbedding:
            return VocabEmbedding(
                config.vocab_size, config.hidden_size, group, communicator, role=role
            )

        self.embedding: VocabEmbedding | None = None
        self.output: VocabEmbedding | None = None
        if stage.is_first:
            self.embedding = vocabulary("output" if config.tie_embeddings else "lookup")
            self.output = self.embedding if config.tie_embeddings else vocabulary("output")
        own_layers = [config.layers[index] for index in stage.layers]
        self.layers = tuple(
            DecoderLayer(config, layer, group, communicator, kernels) for layer in own_layers
        )
        self.registered_layers = nn.ModuleList(self.layers)
        self.norm: RMSNorm | None = None
        if stage.is_last:
            self.norm = RMSNorm(
                config.hidden_size, config.norm_eps, kernels, offset=config.norm_offset
            )
        self.windows = tuple(dict.fromkeys(layer.window for layer in own_layers))
        self.ropes = tuple(dict.fromkeys(layer.rope for layer in own_layers))
        self.angles: tuple[Angles, ...] = ()
        self.embedding_scale = _rounded(config.embedding_scale, self.dtype)
        self.num_parameters = sum(parameter.numel() for parameter in self.parameters())
        self.matrices = matrices_of(self)
        self._choose_precision(precision)
        self.precision_identity = identity_of(self.matrices)
        self.precision = described(self.matrices, self.dtype, precision.levels.base)
        self.weight_bytes = weight_bytes(self, kernels)

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
        return (
            self.embedding is not None
            and self.embedding is self.output
            and matrix is self.embedding.matrix
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def set_context(self, max_model_len: int) -> None:
        """Fix the longest context, on which the frequencies of some rope scalings depend."""
        device = self.device
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
        return self.through_layers(self.embed(token_ids_T), positions_T, step, cache)

    def embed(self, token_ids_T: Tensor) -> Tensor:
        """What the first layer gets, [T, D]: the first stage's to tell."""
        assert self.embedding is not None
        x_TD: Tensor = self.embedding(token_ids_T)
        if self.embedding_scale is not None:
            self.kernels.scale(x_TD, self.embedding_scale)
        return x_TD

    def through_layers(
        self,
        x_TD: Tensor,
        positions_T: Tensor,
        step: AttentionMetadata,
        cache: Sequence[KVLayer],
        *,
        layers: range | None = None,
    ) -> Tensor:
        """What this stage's layers, of which `cache` holds the keys and values, make of `x_TD`,
        which they change; after the last stage it is normed. `layers` are some of them, one after
        the other, counted from the stage's first: what comes before is in `x_TD` already."""
        layers = range(len(self.layers)) if layers is None else layers
        plans = {window: self.kernels.plan_attention(step, window) for window in self.windows}
        turns = {
            rope: self.kernels.plan_rotation(positions_T, *angles)
            for rope, angles in zip(self.ropes, self.angles, strict=True)
        }
        for index in layers:
            layer = self.layers[index]
            kind = layer.config
            x_TD = layer(x_TD, turns[kind.rope], plans[kind.window], cache[index])
        is_whole = layers.stop == len(self.layers)
        return self.norm(x_TD) if is_whole and self.norm is not None else x_TD

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Scores of all tokens, [R, V] in float32, complete on rank 0: the first stage's to tell,
        of what the last one made."""
        assert self.output is not None
        return self.output.logits(hidden_RD, self._cap)

    def _cap(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        return logits if cap is None else self.kernels.softcap(logits, cap)

    def weight_slots(self) -> Iterator[WeightSlot]:
        """Every tensor this rank wants from the checkpoint, under its name in a Llama one."""
        if self.embedding is not None:
            yield from self.embedding.weight_slots("model.embed_tokens")
        for index, layer in zip(self.stage.layers, self.layers, strict=True):
            yield from layer.weight_slots(f"model.layers.{index}")
        if self.norm is not None:
            yield from self.norm.weight_slots("model.norm")
        if self.output is not None and self.output is not self.embedding:
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
    stage: Stage | None = None,
    dtype: torch.dtype,
    device: torch.device,
) -> Decoder:
    """This rank's part of the decoder, its weights not set: load_weights brings them, rounded as
    `precision` says, or not at all. Without a `stage`, it has all layers.

    On the device "meta" it takes no memory, and tells how much it would.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # what layers create their weights in
    try:
        with device:
            return Decoder(
                config,
                group,
                communicator,
                kernels,
                precision or WeightPrecision(),
                stage or whole(len(config.layers)),
            )
    finally:
        torch.set_default_dtype(usual)
