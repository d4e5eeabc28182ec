"""Writing a model in other precisions, with the choices that this machine would serve it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import blake3
import torch
from torch import Tensor

from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.calibration import TokenIds, second_moments
from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.torch_linear import round_in_parts
from novacron.models.decoder import Decoder
from novacron.models.rewriting.folder import RewritingOptions, Rounder, rewrite_model
from novacron.models.rewriting.gptq import round_by_second_moments
from novacron.models.rewriting.plan import choose_forms
from novacron.models.rewriting.recipe import Recipe
from novacron.models.rewriting.source import folder_source, gguf_source

_MOST_BITS = 4  # of weights that GPTQ is for: with eight, nothing is left to win


def rewrite(
    model: ModelConfig,
    path: Path,
    out: Path,
    *,
    shard_bytes: int,
    calibration: Sequence[TokenIds] | None = None,
    tokenizer_texts: Mapping[str, str] = MappingProxyType({}),
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """By rounding to nearest, or with texts for `calibration` by GPTQ where weights get four bits.
    Weights that are rounded already are made dense first, unless they are in the wanted form; the
    log warns that it loses more. `tokenizer_texts` are the files of the tokenizer, by name, of a
    GGUF file; a folder brings its own. Raises ConfigError and ModelLoadError."""
    blueprint = draw_blueprint(model, path, 1)
    weights = blueprint.checkpoint
    if not blueprint.precision.rounds:
        raise ConfigError(
            f"quantization is '{model.quantization}', which rounds nothing. Choose a profile or a "
            "level, such as balanced or int8."
        )
    decoder = blueprint.build(torch.device("meta"))
    method = "rtn"
    round_weight: Rounder = _round_to_nearest
    if calibration is not None:
        method = f"gptq, texts {blake3.blake3(repr(calibration).encode()).hexdigest(4)}"
        round_weight = _ByMoments(blueprint, decoder, calibration)
    options = RewritingOptions(
        recipe=Recipe(
            model.quantization, model.quantization_layers, model.quantization_group_size, method
        ),
        forms=choose_forms(decoder, blueprint.family),
        shard_bytes=shard_bytes,
        round_weight=round_weight,
    )
    source = (
        gguf_source(path, weights, tokenizer_texts)
        if path.is_file()
        else folder_source(path, weights)
    )
    rewrite_model(source, out, options, progress)


def _round_to_nearest(name: str, weight: Tensor, quantization: Quantization) -> Rounded:
    return round_in_parts(weight, quantization)


class _ByMoments:
    """Rounds by GPTQ what has four bits, once the first of them comes: work that goes on and finds
    all of them written reads no texts."""

    def __init__(
        self, blueprint: Blueprint, decoder: Decoder, calibration: Sequence[TokenIds]
    ) -> None:
        self._blueprint = blueprint
        self._calibration = calibration
        self._names = {
            blueprint.family.source_of(name, decoder.config).name: name
            for matrix in decoder.matrices
            for name in matrix.names
            if matrix.role == "layer"
            and matrix.quantization is not None
            and matrix.quantization.bits <= _MOST_BITS
        }
        self._moments: Mapping[str, Tensor] | None = None

    def __call__(self, name: str, weight: Tensor, quantization: Quantization) -> Rounded:
        if name not in self._names:
            return round_in_parts(weight, quantization)
        if self._moments is None:
            wanted = frozenset(self._names.values())
            self._moments = second_moments(self._blueprint, self._calibration, wanted)
        return round_by_second_moments(weight, quantization, self._moments[self._names[name]])
