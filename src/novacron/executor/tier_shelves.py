"""A tier that compresses, opened level by level, and how its bytes are shared among them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final, TypeVar

from novacron.config.kv_compression import KVLevel, TierCompression, levels_from
from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.compressed_tier import CompressedTier, Shelf, identity_in
from novacron.kv_tiers.encrypted_tier import BlockCipher, EncryptedTier, encrypted_identity
from novacron.kv_tiers.record import record_bytes
from novacron.kv_tiers.tier import KVTier
from novacron.records.block import BlockHash

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
    pinned: Container[BlockHash],
    cipher: BlockCipher | None = None,
) -> tuple[KVTier, Sequence[T]]:
    """The tier, and the tiers of its levels. `open_tier` makes one of the level's place among all
    of them, its bytes of a record and its identity. With a cipher blocks are encrypted there, after
    they were compressed."""
    codecs = [codec_of(level) for level in levels_from(compression.level)]
    more_bytes = 0 if cipher is None else cipher.overhead_bytes
    tiers = [
        open_tier(
            place,
            record_bytes(codec.encoded_bytes) + more_bytes,
            stored_identity(identity, codec.level, is_encrypted=cipher is not None),
        )
        for place, codec in enumerate(codecs)
    ]
    whole = [tier if cipher is None else EncryptedTier(tier, cipher) for tier in tiers]
    if len(whole) == 1:
        return whole[0], tiers
    shelves = [Shelf(codec, tier) for codec, tier in zip(codecs, whole, strict=True)]
    tier = CompressedTier(
        shelves, identity, compression.max_error, is_one_place=is_one_place, pinned=pinned
    )
    return tier, tiers


def stored_identity(identity: bytes, level: str, *, is_encrypted: bool) -> bytes:
    """Of records as they lie in a tier of this machine."""
    of_level = identity_in(identity, level)
    return encrypted_identity(of_level) if is_encrypted else of_level
