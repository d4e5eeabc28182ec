"""Tiers tell whose records they have, also those that a process before them stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.encrypted_tier import EncryptedTier
from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.object_tier import ObjectTier
from novacron.kv_tiers.ram_tier import RamTier
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, put
from novacron.testing.kv_scopes import A, check_scopes, numbers_of, put_some

LIMIT = 8 * 16384


class NoCipher:
    """Implements BlockCipher: leaves everything as it is."""

    overhead_bytes = 0

    def seal_into(self, data: bytes, purpose: bytes, into: memoryview) -> None:
        into[:] = data

    def seal(self, data: bytes, purpose: bytes) -> bytes:
        return bytes(data)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        return bytes(sealed)

    def open_into(self, sealed: bytes, purpose: bytes, into: memoryview) -> bool:
        into[:] = sealed
        return True


def disk(folder: Path) -> DiskTier:
    return DiskTier(folder, LIMIT, RECORD_BYTES, IDENTITY)


def bucket(folder: Path) -> ObjectTier:
    return ObjectTier(
        f"file://{folder}", record_bytes=RECORD_BYTES, identity=IDENTITY, capacity_bytes=0,
        timeout_s=20.0,
    )  # fmt: skip


def guarded(tier: DiskTier) -> GuardedTier:
    return GuardedTier(tier, "disk", deadline_s=None, breaker=BreakerConfig())


def test_ram() -> None:
    tier = RamTier(9 * RECORD_BYTES, RECORD_BYTES)
    check_scopes(tier, tier)


def test_a_disk_that_another_process_wrote_behind_a_guard_and_a_cipher(tmp_path: Path) -> None:
    first = EncryptedTier(disk(tmp_path), NoCipher())
    put_some(first)
    first.close()
    assert numbers_of(EncryptedTier(disk(tmp_path), NoCipher()), A) == [0, 1]
    again = guarded(disk(tmp_path))
    check_scopes(again, again)


def test_a_bucket_that_another_process_wrote(tmp_path: Path) -> None:
    check_scopes(bucket(tmp_path), bucket(tmp_path))


@pytest.mark.parametrize("count", [7, 40])
def test_objects_have_names_that_file_systems_take(tmp_path: Path, count: int) -> None:
    tier = bucket(tmp_path)
    put(tier, *range(count))
    assert held(tier, range(count)) == list(range(count))
