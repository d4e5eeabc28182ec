"""How fast blocks move between device memory and a tier, against plain copies of the same bytes.

In a process of its own, `python -m` this file with a folder on the disk to measure, because it
imports torch with the kernels. Prints one TierTimes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
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
_NUM_SETS: Final = 16  # of so many blocks, 192 MiB: more than processors have caches
_ROUNDS: Final = 9
_LOOKUPS: Final = 50
_IDENTITY: Final = identity_of(model_version="tier_speed", kv_identity="bytes", block_size=16)

Copy = Callable[[int], object]  # of all blocks of a set, by its number


class _Blocks:
    """Device blocks in the host's memory. Implements BlockMemory."""

    block_bytes, block_size = _BLOCK_BYTES, 16

    def __init__(self, num_sets: int) -> None:
        shape = (num_sets * _NUM_BLOCKS, _BLOCK_BYTES)
        self.data: Bytes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def of_set(self, number: int) -> Bytes:
        blocks: Bytes = self.data[number * _NUM_BLOCKS : (number + 1) * _NUM_BLOCKS]
        return blocks

    @property
    def host_blocks(self) -> Bytes | None:
        return self.data

    def see_filled(self, block_ids: Iterable[int]) -> None:
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


def _measure(tier: KVTier, blocks: _Blocks, plain_store: Copy, plain_load: Copy) -> MediumTimes:
    """Each round takes the next set of blocks, and has loaded what was stored half of all sets ago,
    so with many of them nothing is in the processor's caches. First all sets are stored once."""
    num_sets = len(blocks.data) // _NUM_BLOCKS
    num_loaders = min(4, os.cpu_count() or 1)
    mover = BlockMover(
        blocks, [tier], _IDENTITY, share=1.0, copies=open_copies(), num_loaders=num_loaders
    )
    times: dict[str, list[float]] = {name: [] for name in MediumTimes.__struct_fields__}

    def store(turn: int) -> None:
        first = turn % num_sets * _NUM_BLOCKS
        orders = tuple(
            StoreBlock(key, block_id, (0,)) for block_id, key in enumerate(_keys(turn), first)
        )
        mover.order(BlockOrders(stores=orders))
        _wait(mover, lambda news: len(news.settled), len(orders))

    def load(turn: int, number: int) -> None:
        order = tuple(
            LoadBlock(key, block_id, 0)
            for block_id, key in enumerate(_keys(turn), number * _NUM_BLOCKS)
        )
        mover.order(BlockOrders(loads=(LoadBlocks(0, order),)))
        _wait(mover, lambda news: sum(all(one.ok) for one in news.loaded), 1)

    for turn in range(num_sets):
        store(turn)
        plain_store(turn % num_sets)
    for turn in range(num_sets, num_sets + _ROUNDS):
        number, earlier = turn % num_sets, (turn - num_sets // 2) % num_sets
        round_s = (
            _timed(partial(store, turn)),
            _timed(partial(plain_store, number)),
            _timed(partial(load, turn - num_sets // 2, number)),
            _timed(partial(plain_load, earlier)),
        )
        for samples, seconds in zip(times.values(), round_s, strict=True):
            samples.append(seconds)
    mover.close()
    return MediumTimes(**{name: tuple(samples) for name, samples in times.items()})


def _ram(num_sets: int) -> MediumTimes:
    size = record_bytes(_BLOCK_BYTES)
    blocks = _Blocks(num_sets)
    elsewhere = np.zeros_like(blocks.data).reshape(num_sets, _NUM_BLOCKS, -1)
    return _measure(
        RamTier(num_sets * _NUM_BLOCKS * size, size, copies=open_copies()),
        blocks,
        lambda number: np.copyto(elsewhere[number], blocks.of_set(number)),
        lambda number: np.copyto(blocks.of_set(number), elsewhere[number]),
    )


def _disk(
    folder: Path, num_sets: int, *, is_full: bool = True, cipher: Sealing | None = None
) -> MediumTimes:
    """Both leave it to the system when bytes reach the medium, whose files it has in memory. A full
    tier writes where others lay, and so does the plain copy; else both write to new files."""
    folder.mkdir()
    blocks = _Blocks(num_sets)
    flags = os.O_CREAT | os.O_RDWR | (0 if is_full else os.O_TRUNC)

    def write(number: int) -> None:
        fd = os.open(folder / f"plain{number}", flags)
        os.pwrite(fd, blocks.of_set(number).data, 0)
        os.close(fd)

    def read(number: int) -> None:
        fd = os.open(folder / f"plain{number}", os.O_RDONLY)
        os.preadv(fd, [blocks.of_set(number).reshape(-1).data], 0)
        os.close(fd)

    size = record_bytes(_BLOCK_BYTES) + (0 if cipher is None else cipher.overhead_bytes)
    most_bytes = (num_sets + 1) * _NUM_BLOCKS * size if is_full else 2**30
    tier = DiskTier(folder / "tier", most_bytes, size, _IDENTITY)
    return _measure(tier if cipher is None else EncryptedTier(tier, cipher), blocks, write, read)


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
        ram=_ram(_NUM_SETS),
        cached_ram=_ram(1),
        disk=_disk(folder / "disk", _NUM_SETS),
        new_files=_disk(folder / "new", _NUM_SETS, is_full=False),
        encrypted_disk=_disk(folder / "encrypted", _NUM_SETS, cipher=_cipher(folder / "keys")),
        lookup_s=_lookups(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(speed) + b"\n")


if __name__ == "__main__":
    main()
