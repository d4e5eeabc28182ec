"""How fast blocks move between device memory and a tier, against plain copies of the same bytes.

In a process of its own, `python -m` this file with a folder on the disk to measure, because it
imports torch with the kernels. Prints one TierTimes.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import identity_of, record_bytes
from novacron.kv_tiers.tier import Bytes, KVTier
from novacron.kv_tiers.tier_index import TierIndex
from novacron.kv_tiers.upkeep import Upkeep, Watched
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    LoadBlock,
    LoadBlocks,
    StoreBlock,
    TierKeys,
)

_ROUNDS: Final = 31
_LOOKUPS: Final = 50
_LOOK_EVERY_S: Final = 0.0005
_TIER_BYTES: Final = 768 * 2**20  # a server has more
_ALIGNED_TO: Final = 64  # as torch has its tensors
_WAYS: Final = ("store_s", "plain_store_s", "load_s", "plain_load_s")
_IDENTITY: Final = identity_of(model_version="tier_speed", kv_identity="bytes", block_size=16)

Copy = Callable[[int], object]  # of all blocks of a set, by its number


@dataclass(frozen=True)
class _Sets:
    """What is moved: sets of blocks, one at a time."""

    num_sets: int
    num_blocks: int = 128  # 2,048 tokens
    block_bytes: int = 96 * 1024  # of the bundled model

    @property
    def record_bytes(self) -> int:
        return record_bytes(self.block_bytes)

    @property
    def all_blocks(self) -> int:
        return self.num_sets * self.num_blocks

    @property
    def set_bytes(self) -> int:
        return self.num_blocks * self.block_bytes

    @property
    def num_fills(self) -> int:
        """How often all sets, as other blocks each time, fill a tier."""
        return max(1, _TIER_BYTES // (self.num_sets * self.set_bytes))


_IN_MEMORY: Final = _Sets(16)  # 192 MiB, more than processors have caches
_LARGE: Final = _Sets(4, 32, 2 * 2**20)  # blocks of a model of 8 B parameters


@dataclass(frozen=True)
class _Drive:
    """What the files of a folder lie on: bytes are to reach it, and to come from it."""

    folder: Path

    def timed_store(self, work: Callable[[], object]) -> float:
        """Until the drive has the bytes; what was written before, it has already."""
        self._each(os.fdatasync, self._written())
        before = self._written()
        worked_s = _timed(work)
        changed = {path: at for path, at in self._written().items() if before.get(path) != at}
        return worked_s + _timed(lambda: self._each(os.fdatasync, changed))

    def timed_load(self, work: Callable[[], object]) -> float:
        """With nothing of the files in memory."""
        self._each(os.fdatasync, self._written())
        self._each(lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED), self._written())
        return _timed(work)

    def _written(self) -> dict[Path, int]:
        """When each file was written to last."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in paths}

    def _each(self, work: Callable[[int], object], paths: Iterable[Path]) -> None:
        for path in paths:
            fd = os.open(path, os.O_RDWR)
            work(fd)
            os.close(fd)


class _Blocks:
    """Device blocks in the host's memory. Implements BlockMemory."""

    block_size = 16

    def __init__(self, sets: _Sets) -> None:
        self.sets, self.block_bytes = sets, sets.block_bytes
        num_bytes = sets.num_sets * sets.set_bytes
        room: Bytes = np.empty(num_bytes + _ALIGNED_TO, np.uint8)
        aligned = room[-room.ctypes.data % _ALIGNED_TO :][:num_bytes]
        aligned.view(np.int64)[:] = np.random.default_rng(0).integers(0, 2**63, num_bytes // 8)
        self.data: Bytes = aligned.reshape(sets.all_blocks, sets.block_bytes)

    def of_set(self, number: int) -> Bytes:
        blocks: Bytes = self.data.reshape(self.sets.num_sets, -1)[number]
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


def _keys(turn: int, count: int = 128) -> list[BlockHash]:
    return [BlockHash((turn << 32 | n).to_bytes(16, "little")) for n in range(count)]


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _wait(mover: BlockMover, is_done: Callable[[BlockNews], int], count: int) -> None:
    while count > 0:
        news = mover.news(1.0)
        count -= is_done(news) if news else 0


def _measure(
    tier: KVTier,
    blocks: _Blocks,
    plain_store: Copy,
    plain_load: Copy,
    *,
    num_before: int = 1,
    upkeep: Upkeep | None = None,
    drive: _Drive | None = None,
) -> MediumTimes:
    """Each round takes the next set of blocks, and has loaded what was stored half of all sets ago,
    so with many of them nothing is in the processor's caches. First all sets are stored
    `num_before` times, as other blocks each time. What upkeep has to do is done between rounds.
    With a `drive`, stores end when it has the bytes, and nothing is in memory before loads."""
    num_sets, num_blocks = blocks.sets.num_sets, blocks.sets.num_blocks
    num_loaders = min(4, os.cpu_count() or 1)
    mover = BlockMover(
        blocks, [tier], _IDENTITY, share=1.0, copies=open_copies(), num_loaders=num_loaders,
        upkeep=upkeep,
    )  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in _WAYS}

    def store(turn: int) -> None:
        first = turn % num_sets * num_blocks
        orders = tuple(
            StoreBlock(key, block_id, (0,))
            for block_id, key in enumerate(_keys(turn, num_blocks), first)
        )
        mover.order(BlockOrders(stores=orders))
        _wait(mover, lambda news: len(news.settled), len(orders))

    def load(turn: int, number: int) -> None:
        order = tuple(
            LoadBlock(key, block_id, 0)
            for block_id, key in enumerate(_keys(turn, num_blocks), number * num_blocks)
        )
        mover.order(BlockOrders(loads=(LoadBlocks(0, order),)))
        _wait(mover, lambda news: sum(all(one.ok) for one in news.loaded), 1)

    first_turn = num_before * num_sets
    for turn in range(first_turn):
        store(turn)
        plain_store(turn % num_sets)
    for turn in range(first_turn, first_turn + _ROUNDS):
        while upkeep is not None and not upkeep.is_idle:
            time.sleep(_LOOK_EVERY_S)
        number, earlier = turn % num_sets, (turn - num_sets // 2) % num_sets
        stores = partial(store, turn), partial(plain_store, number)
        loads = partial(load, turn - num_sets // 2, number), partial(plain_load, earlier)
        round_s = [
            *(_timed(work) if drive is None else drive.timed_store(work) for work in stores),
            *(_timed(work) if drive is None else drive.timed_load(work) for work in loads),
        ]
        for samples, seconds in zip(times.values(), round_s, strict=True):
            samples.append(seconds)
    mover.close()
    samples_of = {name: tuple(samples) for name, samples in times.items()}
    return MediumTimes(num_bytes=blocks.sets.set_bytes, **samples_of)


def _ram(sets: _Sets) -> MediumTimes:
    size = sets.record_bytes
    blocks = _Blocks(sets)
    elsewhere = np.zeros_like(blocks.data).reshape(sets.num_sets, -1)
    most_bytes = sets.num_fills * sets.all_blocks * size
    tier = RamTier(most_bytes, size, copies=open_copies(), policy=PolicyConfig())
    return _measure(
        tier,
        blocks,
        lambda number: np.copyto(elsewhere[number], blocks.of_set(number)),
        lambda number: np.copyto(blocks.of_set(number), elsewhere[number]),
        num_before=sets.num_fills,
        upkeep=Upkeep([Watched(0, "ram", lambda: 0.0, (tier,))]),
    )


def _disk(
    folder: Path,
    sets: _Sets,
    *,
    is_full: bool = True,
    cipher: Sealing | None = None,
    drive: _Drive | None = None,
) -> MediumTimes:
    """Without a `drive` both leave it to the system when bytes reach it, whose files it has in
    memory. A full tier writes where others lay, and so does the plain copy; else both write to new
    files."""
    folder.mkdir()
    blocks, turns = _Blocks(sets), itertools.count()
    paths = [folder / f"plain{number}" for number in range(sets.num_sets)]

    def write(number: int) -> None:
        if not is_full:
            paths[number] = folder / f"new{next(turns)}"
        fd = os.open(paths[number], os.O_CREAT | os.O_RDWR)
        os.pwrite(fd, blocks.of_set(number).data, 0)
        os.close(fd)

    def read(number: int) -> None:
        fd = os.open(paths[number], os.O_RDONLY)
        os.preadv(fd, [blocks.of_set(number).data], 0)
        os.close(fd)

    size = sets.record_bytes + (0 if cipher is None else cipher.overhead_bytes)
    num_fills = sets.num_fills if is_full else 1
    num_blocks = num_fills * sets.all_blocks + sets.num_blocks
    most_bytes = num_blocks * size if is_full else 2**30
    tier = DiskTier(folder / "tier", most_bytes, size, _IDENTITY, policy=PolicyConfig())
    upkeep = Upkeep([Watched(0, "disk", lambda: 0.0, (tier,))])
    sealed = tier if cipher is None else EncryptedTier(tier, cipher)
    return _measure(sealed, blocks, write, read, num_before=num_fills, upkeep=upkeep, drive=drive)


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
    drive = _Drive(folder / "drive")
    speed = TierTimes(
        ram=_ram(_IN_MEMORY),
        large_ram=_ram(_LARGE),
        disk=_disk(folder / "disk", _IN_MEMORY),
        drive=_disk(drive.folder, _IN_MEMORY, drive=drive),
        large_disk=_disk(folder / "large", _LARGE),
        new_files=_disk(folder / "new", _IN_MEMORY, is_full=False),
        encrypted_disk=_disk(folder / "encrypted", _IN_MEMORY, cipher=_cipher(folder / "keys")),
        lookup_s=_lookups(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(speed) + b"\n")


if __name__ == "__main__":
    main()
