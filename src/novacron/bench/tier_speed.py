"""How fast blocks move between device memory and a tier, against plain copies of the same bytes.

In a process of its own, `python -m` this file with a folder on the disk to measure, because it
imports torch with the kernels. Prints one TierTimes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from novacron.bench.tier_times import MediumTimes, TierTimes
from novacron.encryption.key_places import FolderPlace
from novacron.encryption.key_ring import KeyRing
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import new_master_key
from novacron.encryption.sealing import Sealing
from novacron.executor.tiers import open_copies
from novacron.kv_tiers.block_mover import BlockMover
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.encrypted_tier import EncryptedTier
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import identity_of, record_bytes
from novacron.kv_tiers.tier import Bytes, KVTier
from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    LoadBlock,
    LoadBlocks,
    StoreBlock,
    TierKeys,
)

_BLOCK_BYTES: Final = 96 * 1024  # of the bundled model
_NUM_BLOCKS: Final = 128  # 2,048 tokens
_ROUNDS: Final = 9
_LOOKUPS: Final = 50
_IDENTITY: Final = identity_of(model_version="tier_speed", kv_identity="bytes", block_size=16)


class _Blocks:
    """Device blocks in the host's memory. Implements BlockMemory."""

    block_bytes, block_size = _BLOCK_BYTES, 16

    def __init__(self) -> None:
        shape = (_NUM_BLOCKS, _BLOCK_BYTES)
        self.data: Bytes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def host_block(self, block_id: int) -> Bytes | None:
        block: Bytes = self.data[block_id]
        return block

    def see_filled(self, block_id: int) -> None:
        pass

    def read_block(self, block_id: int, into: Bytes) -> None:
        into[:] = self.data[block_id]

    def write_block(self, block_id: int, data: Bytes) -> None:
        self.data[block_id] = data


def _keys(turn: int) -> list[BlockHash]:
    return [BlockHash((turn << 32 | n).to_bytes(16, "little")) for n in range(_NUM_BLOCKS)]


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _wait(mover: BlockMover, is_done: Callable[[BlockNews], int], count: int) -> None:
    while count > 0:
        news = mover.news(1.0)
        count -= is_done(news) if news else 0


def _measure(
    tier: KVTier, plain_store: Callable[[Bytes], None], plain_load: Callable[[Bytes], None]
) -> MediumTimes:
    blocks = _Blocks()
    num_loaders = min(4, os.cpu_count() or 1)
    mover = BlockMover(
        blocks, [tier], _IDENTITY, share=1.0, copies=open_copies(), num_loaders=num_loaders
    )
    times: dict[str, list[float]] = {name: [] for name in MediumTimes.__struct_fields__}

    def store(keys: list[BlockHash]) -> None:
        orders = tuple(StoreBlock(key, block_id, (0,)) for block_id, key in enumerate(keys))
        mover.order(BlockOrders(stores=orders))
        _wait(mover, lambda news: len(news.settled), len(keys))

    def load(keys: list[BlockHash]) -> None:
        order = tuple(LoadBlock(key, block_id, 0) for block_id, key in enumerate(keys))
        mover.order(BlockOrders(loads=(LoadBlocks(0, order),)))
        _wait(mover, lambda news: sum(all(one.ok) for one in news.loaded), 1)

    for turn in range(-1, _ROUNDS):
        keys = _keys(turn + 1)
        round_s = (
            _timed(partial(store, keys)),
            _timed(partial(plain_store, blocks.data)),
            _timed(partial(load, keys)),
            _timed(partial(plain_load, blocks.data)),
        )
        for samples, seconds in zip(times.values() if turn >= 0 else (), round_s, strict=False):
            samples.append(seconds)
    mover.close()
    return MediumTimes(**{name: tuple(samples) for name, samples in times.items()})


def _ram() -> MediumTimes:
    size = record_bytes(_BLOCK_BYTES)
    elsewhere: Bytes = np.zeros((_NUM_BLOCKS, _BLOCK_BYTES), np.uint8)
    return _measure(
        RamTier(_NUM_BLOCKS * size, size, copies=open_copies()),
        lambda data: np.copyto(elsewhere, data),
        lambda data: np.copyto(data, elsewhere),
    )


def _disk(folder: Path, cipher: Sealing | None = None) -> MediumTimes:
    """Both leave it to the system when bytes reach the medium, and read what was just written."""
    folder.mkdir()
    path = folder / "plain"

    def write(data: Bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data.data)

    def read(data: Bytes) -> None:
        with path.open("rb", buffering=0) as file:
            file.readinto(data.reshape(-1).data)

    size = record_bytes(_BLOCK_BYTES) + (0 if cipher is None else cipher.overhead_bytes)
    tier = DiskTier(folder / "tier", 2**30, size, _IDENTITY)
    return _measure(tier if cipher is None else EncryptedTier(tier, cipher), write, read)


def _cipher(folder: Path) -> Sealing:
    masters = open_master_keys("env:KEY", {"KEY": new_master_key()})
    return Sealing(KeyRing(FolderPlace(folder), masters))


def _lookups() -> tuple[float, ...]:
    index, keys = TierIndex(2), _keys(0)
    others = tuple(key for turn in range(1, 80) for key in _keys(turn))
    index.see(BlockNews(added=(TierKeys(0, tuple(keys)), TierKeys(1, (*keys, *others)))))
    return tuple(_timed(lambda: list(map(index.tier_of, keys))) for _ in range(_LOOKUPS))


def main() -> None:
    folder = Path(sys.argv[1])
    speed = TierTimes(
        num_bytes=_NUM_BLOCKS * _BLOCK_BYTES,
        ram=_ram(),
        disk=_disk(folder / "disk"),
        encrypted_disk=_disk(folder / "encrypted", _cipher(folder / "keys")),
        lookup_s=_lookups(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(speed) + b"\n")


if __name__ == "__main__":
    main()
