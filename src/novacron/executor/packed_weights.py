"""Weights from the packed cache where it has them, else from the checkpoint, and then into it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from novacron.config.folders import cache_folder
from novacron.config.model import ModelConfig
from novacron.models.decoder import Decoder
from novacron.models.loading import fits, load_weights, packed_weights
from novacron.models.packed_cache import PackedCache
from novacron.models.registry import Family
from novacron.models.weight_files import WeightFiles
from novacron.parallel.groups import SINGLE, ParallelGroup


def packed_cache(model: ModelConfig) -> PackedCache:
    return PackedCache(cache_folder(model) / "packed", model.packed_cache_size)


def load_or_map_weights(
    decoder: Decoder,
    checkpoint: WeightFiles,
    family: Family,
    progress: Callable[[float], None],
    *,
    cache: PackedCache,
    version: Callable[[], str],
    group: ParallelGroup = SINGLE,
    elsewhere: Collection[str] = (),
) -> None:
    """Make the decoder ready. `version` waits for the digest of the checkpoint. What is packed now
    is written in the background. `elsewhere`: see load_weights. Raises ModelLoadError."""
    if decoder.kernels.linear_of_packed is None or not cache.is_for(decoder.weight_bytes):
        load_weights(decoder, checkpoint, family, progress, elsewhere=elsewhere)
        return
    key = cache_key(version(), decoder, group)
    found = cache.find(key)
    if found is not None and fits(decoder, found):
        load_weights(decoder, checkpoint, family, progress, found, elsewhere)
        return
    load_weights(decoder, checkpoint, family, progress, elsewhere=elsewhere)
    made = packed_weights(decoder)
    if made is not None:
        cache.keep_in_background(key, made)


def cache_key(version: str, decoder: Decoder, group: ParallelGroup = SINGLE) -> str:
    """Names the file of these weights in this precision, as these kernels pack them: those of one
    rank of one stage."""
    dtype = str(decoder.dtype).removeprefix("torch.")
    rank = f"rank{group.rank}of{group.size}" if group.size > 1 else ""
    layout = decoder.kernels.weight_layout
    parts = (version, dtype, decoder.precision_identity, layout, decoder.stage.name, rank)
    return "-".join(filter(None, parts))
