"""Blocks that only holders of a key can read: on disk, in Redis and in buckets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from novacron.encryption.key_places import FolderPlace
from novacron.encryption.key_ring import KeyRing
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import new_master_key
from novacron.encryption.sealing import Sealing
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.encrypted_tier import Encrypted, EncryptedTier, encrypted_identity
from novacron.kv_tiers.object_tier import ObjectTier
from novacron.kv_tiers.packing import Packing, Whole
from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.tier import Record
from novacron.kv_tiers.zstd_packing import Zstd
from novacron.testing.kv_records import (
    IDENTITY,
    RECORD_BYTES,
    block_content,
    held,
    key_of,
    make_record,
    put,
)

MASTER = new_master_key()
LIMIT = 8 * 16384


def sealing(folder: Path, master: str = MASTER) -> Sealing:
    return Sealing(KeyRing(FolderPlace(folder), open_master_keys("env:M", {"M": master})))


def disk(folder: Path, cipher: Sealing) -> EncryptedTier:
    size = RECORD_BYTES + cipher.overhead_bytes
    return EncryptedTier(DiskTier(folder, LIMIT, size, encrypted_identity(IDENTITY)), cipher)


def files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_restart_finds_them_and_the_disk_shows_none_of_them(tmp_path: Path) -> None:
    tier = disk(tmp_path, sealing(tmp_path / "keys"))
    put(tier, *range(5))
    tier.close()
    again = disk(tmp_path, sealing(tmp_path / "keys"))
    assert held(again, range(6)) == [0, 1, 2, 3, 4]
    assert again.contains([key_of(1), key_of(9)]) == [True, False]
    again.delete([key_of(1)])
    assert held(again, range(3)) == [0, 2]
    content = files_of(tmp_path)
    for number in range(5):
        assert block_content(number)[:16].tobytes() not in content


def test_with_another_key_they_are_misses(tmp_path: Path) -> None:
    put(disk(tmp_path, sealing(tmp_path / "keys")), 1, 2)
    other = disk(tmp_path, sealing(tmp_path / "other-keys", new_master_key()))
    assert held(other, (1, 2)) == []
    put(other, 3)
    assert held(other, (1, 2, 3)) == [3]


def test_a_block_put_in_anothers_place_or_changed_does_not_check(tmp_path: Path) -> None:
    """As somebody would do who can write to the disk, and has no key."""
    cipher = sealing(tmp_path / "keys")
    inner = DiskTier(
        tmp_path, LIMIT, RECORD_BYTES + cipher.overhead_bytes, encrypted_identity(IDENTITY)
    )
    tier = EncryptedTier(inner, cipher)
    put(tier, 1)
    sealed = np.empty(RECORD_BYTES + cipher.overhead_bytes, np.uint8)
    assert inner.get([key_of(1)], [sealed]) == [True]
    changed = sealed.copy()
    changed[100] ^= 1
    inner.put([Record(key_of(2), sealed), Record(key_of(3), changed)])
    for number in (2, 3):
        buffer = np.zeros(RECORD_BYTES, np.uint8)
        assert tier.get([key_of(number)], [buffer]) == [True]
        assert not is_sound(buffer, IDENTITY, key_of(number))  # so the loader drops it


@pytest.mark.parametrize("packing", [Whole, Zstd])
def test_a_bucket_holds_nothing_readable(tmp_path: Path, packing: type[Packing]) -> None:
    def bucket(keys: Path) -> ObjectTier:
        return ObjectTier(
            tmp_path.as_uri(),
            record_bytes=RECORD_BYTES,
            identity=encrypted_identity(IDENTITY),
            capacity_bytes=0,
            timeout_s=5.0,
            packing=Encrypted(packing(), sealing(keys)),
        )

    first = bucket(tmp_path / "keys")
    first.put([make_record(1), make_record(2)])
    again = bucket(tmp_path / "keys")
    again.refresh()
    assert held(again, (1, 2, 3)) == [1, 2]
    stranger = bucket(tmp_path / "elsewhere")
    stranger.refresh()
    assert held(stranger, (1, 2)) == []
    assert block_content(1)[:16].tobytes() not in files_of(tmp_path)
