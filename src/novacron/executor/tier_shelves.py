"""A tier that compresses, opened level by level, and how its bytes are shared among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from novacron.config.kv_compression import KVLevel, TierCompression, levels_from
from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.compressed_tier import CompressedTier, Shelf, identity_in
from novacron.kv_tiers.record import record_bytes
from novacron.kv_tiers.tier import KVTier

T = TypeVar("T", bound=KVTier)
CodecOf = Callable[[KVLevel], BlockCodec]

_PART_OF_FALLBACKS: Final = 8  # of RAM, one part in so many is for blocks that lose too much


def least_ram_bytes(compression: TierCompression, raw_record_bytes: int) -> int:
    """With less, a level would have no room for a record."""
    num_fallbacks = len(levels_from(compression.level)) - 1
    return raw_record_bytes * max(1, _PART_OF_FALLBACKS * num_fallbacks)


def ram_shares(capacity_bytes: int, num_levels: int) -> list[int]:
    """Bytes of each level: nearly all for the one that was chosen."""
    if num_levels == 1:
        return [capacity_bytes]
    of_fallback = capacity_bytes // _PART_OF_FALLBACKS // (num_levels - 1)
    return [capacity_bytes - of_fallback * (num_levels - 1), *[of_fallback] * (num_levels - 1)]


def open_levels(
    compression: TierCompression,
    identity: bytes,
    codec_of: CodecOf,
    open_tier: Callable[[int, int, bytes], T],
    *,
    is_one_place: bool,
) -> tuple[KVTier, Sequence[T]]:
    """The tier, and the tiers of its levels. `open_tier` makes one of the level's place among all
    of them, its bytes of a record and its identity."""
    codecs = [codec_of(level) for level in levels_from(compression.level)]
    tiers = [
        open_tier(place, record_bytes(codec.encoded_bytes), identity_in(identity, codec.level))
        for place, codec in enumerate(codecs)
    ]
    if len(tiers) == 1:
        return tiers[0], tiers
    shelves = [Shelf(codec, tier) for codec, tier in zip(codecs, tiers, strict=True)]
    whole = CompressedTier(shelves, identity, compression.max_error, is_one_place=is_one_place)
    return whole, tiers
