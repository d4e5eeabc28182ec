"""Blocks that leave the disk for a tier on another machine: whole ones, read before others take
their places."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.kv_tiers.demotion import Demotion, worth_demoting
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.tier import Bytes, KVTier


def demote_to_far(
    whole: KVTier, levels: Sequence[DiskTier], record_bytes: int, identity: bytes
) -> Demotion:
    """What gets the used blocks that leave these tiers. `whole` reads blocks of all of them, as
    they were before they were compressed or encrypted. Others are not worth a trip: they went to
    all tiers once."""
    demotion = Demotion(
        record_bytes, worth_demoting(is_there=lambda block: False, has_room=lambda: False)
    )

    def leaving(block: Block) -> None:
        def read(into: Bytes) -> bool:
            try:
                [is_there] = whole.get([block.key], [into])
            except OSError:  # it leaves all the same
                return False
            return is_there and is_sound(into, identity, block.key)

        demotion.offer_read(block, read)

    for level in levels:
        level.leaving = leaving
    return demotion
