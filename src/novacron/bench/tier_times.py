"""What tier_speed, which imports torch, tells the bench, which does not."""

from __future__ import annotations

import msgspec


class MediumTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each round for `num_bytes`: moved by a BlockMover, and plainly copied."""

    num_bytes: int
    store_s: tuple[float, ...]
    plain_store_s: tuple[float, ...]
    load_s: tuple[float, ...]
    plain_load_s: tuple[float, ...]


class TierTimes(msgspec.Struct, frozen=True, kw_only=True):
    ram: MediumTimes
    large_ram: MediumTimes  # in blocks of 2 MiB
    disk: MediumTimes  # files that the system has in memory
    drive: MediumTimes  # what the files lie on
    large_disk: MediumTimes
    new_files: MediumTimes  # of the disk, which the system has to find memory for
    encrypted_disk: MediumTimes
    lookup_s: tuple[float, ...]  # of the tiers of all blocks, in the index
