"""Writing a model in other precisions, with the choices that this machine would serve it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from novacron.config.engine import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import draw_blueprint
from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.quantized_linear import round_in_parts
from novacron.models.checkpoint import Checkpoint
from novacron.models.rewriting.folder import RewritingOptions, rewrite_model
from novacron.models.rewriting.plan import choose_forms
from novacron.models.rewriting.recipe import Recipe


def rewrite(
    model: ModelConfig,
    path: Path,
    out: Path,
    *,
    shard_bytes: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Raises ConfigError and ModelLoadError."""
    blueprint = draw_blueprint(model, path, 1)
    if not isinstance(blueprint.checkpoint, Checkpoint):
        raise ConfigError(
            f"{path} holds weights that were rounded already, or is a GGUF file. Rounding twice "
            "loses more than once: take the Hugging Face folder of the original model."
        )
    if not blueprint.precision.rounds:
        raise ConfigError(
            f"quantization is '{model.quantization}', which rounds nothing. Choose a profile or a "
            "level, such as balanced or int8."
        )
    decoder = blueprint.build(torch.device("meta"))
    options = RewritingOptions(
        recipe=Recipe(
            model.quantization, model.quantization_layers, model.quantization_group_size, "rtn"
        ),
        forms=choose_forms(decoder, blueprint.family),
        shard_bytes=shard_bytes,
        round_weight=_round_to_nearest,
    )
    rewrite_model(blueprint.checkpoint, out, options, progress)


def _round_to_nearest(name: str, weight: Tensor, quantization: Quantization) -> Rounded:
    return round_in_parts(weight, quantization)
