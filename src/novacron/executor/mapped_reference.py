"""A model whose weights stay on disk: mapped when they are multiplied with, given back afterwards.

They lie in the cache of packed weights, whatever their size. What is in memory of them can be
dropped by the system at any time, and is dropped by `release`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from torch import Tensor

from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.executor.packed_weights import cache_key, packed_cache
from novacron.kernels.pages import drop_pages
from novacron.models.decoder import Decoder
from novacron.models.loading import fits, load_weights, packed_weights
from novacron.models.model_version import model_version
from novacron.models.weight_precision import WeightPrecision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MappedReference:
    """`decoder` computes as any other; its context is not set."""

    blueprint: Blueprint
    decoder: Decoder
    _mapped: tuple[Tensor, ...]

    def release(self) -> None:
        """Give the memory of the weights back. They are read again when they are wanted."""
        for weights in self._mapped:
            drop_pages(weights)


def map_reference(served: Blueprint, model: ModelConfig) -> MappedReference:
    """The model of `served` as its checkpoint has it, in the precision that `served` computes in.

    The first time, it is loaded and packed, which takes its whole memory for so long. Raises
    ConfigError where weights cannot be kept mapped, and ModelLoadError.
    """
    if served.kernels.linear_of_packed is None:
        raise ConfigError(
            f"quality_watch needs kernels that take weights from files, and {served.kernels.name} "
            "do not. Use native kernels on a CPU, or set quality_watch to 0."
        )
    blueprint = replace(served, precision=WeightPrecision())
    decoder = blueprint.build(blueprint.device)
    if decoder.weight_bytes > model.packed_cache_size:
        raise ConfigError(
            f"quality_watch keeps the {decoder.weight_bytes:,} bytes of the reference's weights on "
            f"disk, and packed_cache_size is {model.packed_cache_size:,}. Allow more."
        )
    cache = packed_cache(model)
    key = cache_key(model_version(blueprint.checkpoint), decoder)
    found = cache.find(key)
    if found is None or not fits(decoder, found):
        logger.info("quality watch: packing the reference's weights")
        load_weights(decoder, blueprint.checkpoint, blueprint.family, _ignore)
        cache.keep(key, packed_weights(decoder) or {})
        decoder = blueprint.build(blueprint.device)
        found = cache.find(key)
    if found is None:
        raise ConfigError(
            f"quality_watch keeps the {decoder.weight_bytes:,} bytes of the reference's weights on "
            "disk, and that failed: the log says why. Make space, or name another cache_dir."
        )
    load_weights(decoder, blueprint.checkpoint, blueprint.family, _ignore, found)
    return MappedReference(blueprint, decoder, tuple(found.values()))


def _ignore(fraction: float) -> None:
    pass
