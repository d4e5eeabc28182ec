"""The upkeep of an engine's own tiers: what is watched, and where blocks go that leave RAM."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from novacron.executor.local_tiers import OpenedTier
from novacron.executor.tier_shelves import CodecOf
from novacron.kv_tiers.codecs.codec import BlockCodec
from novacron.kv_tiers.compressed_tier import identity_in
from novacron.kv_tiers.demotion import Demotion, Restore, worth_demoting
from novacron.kv_tiers.disk_demotion import demote_to_far
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.ram_tier import Leaving, RamTier
from novacron.kv_tiers.record import block_of, is_sound, seal
from novacron.kv_tiers.tier import Bytes
from novacron.kv_tiers.upkeep import Demoting, Upkeep, Watched
from novacron.kv_tiers.warm_start import WarmStart, WarmStartLimits, most_used

_MOST_MEMORY: Final = 64 * 2**30  # of a larger machine what is left is plenty at the same share
_WARM_SHARE: Final = 4  # of RAM, one part in so many is filled after the start
_MOST_DISK: Final = 100 * 2**30
_FAR: Final = ("redis", "object")


def make_upkeep(
    tiers: Sequence[OpenedTier],
    folder: Path,
    *,
    record_bytes: int,
    identity: bytes,
    codec_of: CodecOf,
    warm_bytes_per_s: int = 0,
) -> Upkeep:
    """For tiers in their order. Has the levels of RAM show what leaves them. With a bandwidth RAM
    is filled from disk after the start."""
    arenas = {
        place: [level for level in one.levels if isinstance(level, RamTier)]
        for place, one in enumerate(tiers)
    }
    disks = {
        place: [level for level in one.levels if isinstance(level, DiskTier)]
        for place, one in enumerate(tiers)
    }
    watched = [
        Watched(place, "ram", _memory_used, arenas[place], arenas[place])
        for place, one in enumerate(tiers)
        if one.spec.kind == "ram"
    ]
    watched += [
        Watched(place, "disk", lambda: _disk_used(folder), levels)
        for place, levels in disks.items()
        if levels
    ]
    disk = next((place for place, levels in disks.items() if levels), None)
    ram = next((place for place, one in enumerate(tiers) if one.spec.kind == "ram"), None)
    if disk is None:
        return Upkeep(watched)
    levels = disks[disk]
    demotions = []
    far = next((n for n, one in enumerate(tiers) if n > disk and one.spec.kind in _FAR), None)
    if far is not None and tiers[far].spec.region == tiers[disk].spec.region:
        # Elsewhere not all may go that may lie here.
        demotion = demote_to_far(tiers[disk].tier, levels, record_bytes, identity)
        demotions.append(Demoting(demotion, far, asks_first=True))
    if ram is None or disk < ram:
        return Upkeep(watched, demotions)
    demotion = Demotion(
        record_bytes,
        worth_demoting(
            is_there=lambda block: any(block.key in level for level in levels),
            has_room=lambda: levels[0].has_room,
        ),
    )
    demotions.append(Demoting(demotion, disk))
    for arena, name in zip(arenas[ram], tiers[ram].level_names, strict=True):
        restore = None
        if name != "raw":
            restore = _restored_by(codec_of(name), identity_in(identity, name), identity)
        arena.leaving = _offer_to(demotion, restore)
    warm_start = None
    if warm_bytes_per_s:
        warm_start = WarmStart(
            lambda count: most_used((e for level in levels for e in level.entries), count),
            disk,
            ram,
            record_bytes=record_bytes,
            identity=identity,
            limits=WarmStartLimits(
                most_bytes=tiers[ram].spec.capacity_bytes // _WARM_SHARE,
                bytes_per_s=warm_bytes_per_s,
            ),
        )
    return Upkeep(watched, demotions, warm_start=warm_start)


def _offer_to(demotion: Demotion, restore: Restore | None) -> Leaving:
    def leaving(block: Block, data: Bytes) -> None:
        demotion.offer(block, data, restore)

    return leaving


def _restored_by(codec: BlockCodec, level_identity: bytes, identity: bytes) -> Restore:
    """Makes the record of a whole block of one in a level."""

    def restore(block: Block, data: Bytes, into: Bytes) -> bool:
        if not is_sound(data, level_identity, block.key):
            return False
        codec.decode(block_of(data), block_of(into))
        seal(into, identity, block.key)
        return True

    return restore


def _memory_used() -> float:
    memory = psutil.virtual_memory()
    return 1 - min(1.0, memory.available / min(memory.total, _MOST_MEMORY))


def _disk_used(folder: Path) -> float:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:  # the tier will find out
        return 0.0
    return 1 - min(1.0, usage.free / min(usage.total, _MOST_DISK))
