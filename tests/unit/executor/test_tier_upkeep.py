"""Where blocks go that leave the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.executor.local_tiers import OpenedTier
from novacron.executor.tier_upkeep import make_upkeep
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.ram_tier import RamTier
from novacron.records.output import TierSpec
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES


@pytest.mark.parametrize(
    ("kinds", "regions", "goes_on"),
    [
        (("disk", "redis"), ("", ""), True),
        (("disk", "object"), ("eu", "eu"), True),
        (("disk", "redis"), ("eu", "us"), False),
        (("disk", "redis"), ("eu", ""), False),
        (("redis", "disk"), ("", ""), False),
        (("disk",), ("",), False),
    ],
)
def test_blocks_leave_the_disk_for_a_slower_tier_of_its_region_alone(
    tmp_path: Path, kinds: tuple[str, ...], regions: tuple[str, ...], goes_on: bool
) -> None:
    """What may lie on this disk need not be allowed in another region."""
    disk = DiskTier(tmp_path, 2**20, RECORD_BYTES, IDENTITY)

    def opened(kind: str, region: str) -> OpenedTier:
        spec = TierSpec(kind=kind, capacity_bytes=2**20, region=region)
        if kind != "disk":
            return OpenedTier(spec, RamTier(2**16, RECORD_BYTES))
        return OpenedTier(spec, disk, levels=[disk], level_names=("raw",))

    def no_codec(level: str) -> None:
        raise AssertionError(f"nothing is in {level} here")

    make_upkeep(
        list(map(opened, kinds, regions)), tmp_path, record_bytes=RECORD_BYTES, identity=IDENTITY,
        codec_of=no_codec,  # type: ignore[arg-type]
    )  # fmt: skip
    assert (disk.leaving is not None) == goes_on
    disk.close()
