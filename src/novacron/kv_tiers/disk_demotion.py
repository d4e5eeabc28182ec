"""Blocks that leave the disk for a tier on another machine: whole ones, read before others take
their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.demotion import Demotion, Restore, worth_demoting
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.record import block_of, is_sound, record_bytes, seal
from novacron.kv_tiers.tier import Bytes

Level = tuple[BlockCodec, bytes]  # and the identity of its records


def demote_to_far(
    tiers: Sequence[DiskTier], levels: Sequence[Level | None], whole_bytes: int, identity: bytes
) -> Demotion:
    """What gets the used blocks that leave these tiers; a level that is None holds whole records.
    Others are not worth a trip: they went to all tiers once."""
    demotion = Demotion(
        whole_bytes, worth_demoting(is_there=lambda block: False, has_room=lambda: False)
    )
    for tier, level in zip(tiers, levels, strict=True):
        _have_shown(tier, level, identity, demotion)
    return demotion


def _have_shown(tier: DiskTier, level: Level | None, identity: bytes, demotion: Demotion) -> None:
    restore = None if level is None else restored_by(*level, identity)
    encoded_bytes = 0 if level is None else record_bytes(level[0].encoded_bytes)

    def leaving(block: Block) -> None:
        def read(into: Bytes) -> bool:
            if restore is None:
                return _has_read(tier, block, into) and is_sound(into, identity, block.key)
            code = np.empty(encoded_bytes, np.uint8)
            return _has_read(tier, block, code) and restore(block, code, into)

        demotion.offer_read(block, read)

    tier.leaving = leaving


def _has_read(tier: DiskTier, block: Block, into: Bytes) -> bool:
    try:
        return tier.get([block.key], [into])[0]
    except OSError:  # it leaves all the same
        return False


def restored_by(codec: BlockCodec, level_identity: bytes, identity: bytes) -> Restore:
    """Makes the record of a whole block of one in a level."""

    def restore(block: Block, data: Bytes, into: Bytes) -> bool:
        if not is_sound(data, level_identity, block.key):
            return False
        codec.decode(block_of(data), block_of(into))
        seal(into, identity, block.key)
        return True

    return restore
