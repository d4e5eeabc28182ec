"""Processes that store blocks on disk and are killed while they do, over and over, in one folder.

    python -m novacron.bench.killed_writers FOLDER --cycles 1000 --seed 1 --limit 262144

A cycle forks a process that opens the folder and stores, deletes and reads as fast as it can. At a
system call drawn beforehand it gets SIGKILL, in the middle of a write too. Then the folder has to
open, to be within its limit, and to hold nothing but what was stored, bit for bit. With
--power-cuts, now and then what the system had not written back is lost as well: files end early,
pages are zero, files are gone. With --neighbour another process uses the folder all the time.

Prints what it saw, as JSON; status 1 if something could not go on.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from novacron.bench.numbered_records import (
    IDENTITY,
    RECORD_BYTES,
    block_content,
    key_of,
    make_record,
)
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.record import block_of, is_sound
from novacron.records.block import BlockHash

_PAGE: Final = 4096
_MOST_CALLS: Final = 120  # of a process, until it is killed
_NEIGHBOUR: Final = 10**9  # its numbers begin here
_DELETED: Final = 2**62  # added to a number that is told of
_FATAL: Final = (
    "pwrite", "pwritev", "open", "truncate", "unlink", "rename", "utime", "close", "pread", "preadv"
)  # fmt: skip


@dataclass
class Seen:
    """What became of it. Counts of blocks, but for the first and the last three."""

    cycles: int = 0
    stored: int = 0  # the writer was told so before it was killed
    found: int = 0  # after each cycle, added up
    lost: int = 0  # of those that were stored in the same cycle, and not deleted
    unsound: int = 0  # told of by a file that was damaged, and refused
    torn: int = 0  # of those, after cycles without a power cut
    wrong: int = 0  # that checked, and were not what was stored
    most_bytes: int = 0
    over_limit: int = 0  # cycles after which the folder took more
    power_cuts: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=2**18)
    parser.add_argument("--power-cuts", action="store_true")
    parser.add_argument("--neighbour", action="store_true")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    stop = _start_neighbour(arguments.folder, arguments.limit) if arguments.neighbour else None
    seen = Seen()
    start = 0
    for _ in range(arguments.cycles):
        fatal_call, seed = rng.randrange(1, _MOST_CALLS), rng.random()
        writer = functools.partial(
            _write, arguments.folder, arguments.limit, start, fatal_call, seed
        )
        told = _in_a_process_that_dies(writer)
        stored = {number for number in told if number < _DELETED}
        deleted = {number - _DELETED for number in told if number >= _DELETED}
        seen.cycles, seen.stored = seen.cycles + 1, seen.stored + len(stored)
        is_cut = arguments.power_cuts and rng.random() < 0.3
        if is_cut:
            _cut_power(arguments.folder, rng)
            seen.power_cuts += 1
        start += _MOST_CALLS
        numbers = _check(arguments.folder, arguments.limit, seen, may_be_damaged=is_cut)
        if not is_cut:
            seen.lost += len(stored - deleted - numbers)
    if stop is not None:
        stop()
    print(json.dumps(asdict(seen)))


def _in_a_process_that_dies(work: Callable[[Callable[[int], object]], None]) -> list[int]:
    """What `work` told before it was killed. Raises AssertionError if it ended otherwise."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        write = os.write  # before calls are counted
        try:
            work(lambda number: write(writing, number.to_bytes(8, "little")))
            status = 0  # the call that it should have died at did not come
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"a writer ended with status {status}"
    return [int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told), 8)]


def _write(
    folder: Path,
    limit: int,
    start: int,
    fatal_call: int,
    seed: float,
    tell: Callable[[int], object],
) -> None:
    rng = random.Random(seed)
    _die_at(fatal_call, rng)
    tier = DiskTier(folder, limit, RECORD_BYTES, IDENTITY)
    for number in range(start, start + _MOST_CALLS):
        if tier.put([make_record(number)]).stored:
            tell(number)
        if rng.random() < 0.05 and number > start:
            gone = rng.randrange(start, number)
            tell(gone + _DELETED)  # or about to be
            tier.delete([key_of(gone)])
        if rng.random() < 0.1:
            tier.contains([key_of(rng.randrange(start, number + 1))])


def _die_at(fatal_call: int, rng: random.Random) -> None:
    """Have this process killed at its n-th system call that matters; a write may be half done."""
    left = fatal_call
    write = os.pwrite

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if call.__name__ in ("pwrite", "pwritev"):
                    fd, data, where = arguments
                    whole = data if call.__name__ == "pwrite" else b"".join(data)
                    write(fd, memoryview(whole)[: rng.randrange(len(whole) + 1)], where)
                elif rng.random() < 0.5:
                    call(*arguments, **named)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return instead

    for name in _FATAL:
        setattr(os, name, deadly(getattr(os, name)))


def _check(folder: Path, limit: int, seen: Seen, *, may_be_damaged: bool) -> set[int]:
    """The numbers of the blocks that the folder holds; each is what was stored under it."""
    num_bytes = _bytes_of(folder)
    seen.most_bytes = max(seen.most_bytes, num_bytes)
    seen.over_limit += num_bytes > limit
    tier = DiskTier(folder, limit, RECORD_BYTES, IDENTITY)
    numbers, unsound, num_wrong = _read(tier, tier.keys)
    seen.torn += 0 if may_be_damaged else len(unsound)
    seen.wrong += num_wrong
    tier.delete(unsound)
    tier.close()
    seen.found += len(numbers)
    seen.unsound += len(unsound)
    return numbers


def _read(tier: DiskTier, keys: Iterable[BlockHash]) -> tuple[set[int], list[BlockHash], int]:
    """The numbers that are there and right, the keys of what does not check, and how many others
    are there."""
    numbers, unsound, num_wrong = set(), [], 0
    buffer = np.zeros(RECORD_BYTES, np.uint8)
    for key in keys:
        [is_there] = tier.get([key], [buffer])
        if not is_there:
            continue  # gone meanwhile
        if not is_sound(buffer, IDENTITY, key):
            unsound.append(key)
            continue
        number = int.from_bytes(key, "little")
        if (block_of(buffer) == block_content(number)).all():
            numbers.add(number)
        else:
            num_wrong += 1
    return numbers, unsound, num_wrong


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # a neighbour made room
            continue
    return total


def _cut_power(folder: Path, rng: random.Random) -> None:
    """What may become of files that were not written back when the machine stops."""
    for path in folder.glob("*.kvseg"):
        kind = rng.choice(["kept", "tail", "pages", "pages", "gone", "empty"])
        size = path.stat().st_size
        if kind == "tail":
            os.truncate(path, rng.randrange(size + 1))
        elif kind == "empty":  # its length was written, and nothing else
            os.truncate(path, 0)
            os.truncate(path, size)
        elif kind == "gone":
            path.unlink()
        elif kind == "pages":
            with path.open("r+b") as file:
                for _ in range(rng.randrange(1, 5)):
                    start = file.seek(rng.randrange(size // _PAGE + 1) * _PAGE)
                    length = _PAGE if rng.random() < 0.8 else 512
                    file.write(bytes(min(length, size - start)))  # no file becomes longer by it


def _start_neighbour(folder: Path, limit: int) -> Callable[[], None]:
    """A process that stores and reads until it is told to stop. What is returned stops it."""
    asked_r, asked_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asked_w)
        os.set_blocking(asked_r, False)
        status = 1
        try:
            _be_a_neighbour(folder, limit, asked_r)
            status = 0
        finally:
            os._exit(status)
    os.close(asked_r)

    def stop() -> None:
        os.close(asked_w)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"the neighbour ended with status {status}"

    return stop


def _be_a_neighbour(folder: Path, limit: int, asked: int) -> None:
    tier = DiskTier(folder, limit, RECORD_BYTES, IDENTITY)
    number = _NEIGHBOUR
    while True:
        try:
            if os.read(asked, 1) == b"":
                return
        except BlockingIOError:
            pass
        try:
            tier.put([make_record(number)])
        except OSError as error:
            if error.errno != errno.EDQUOT:  # the others fill all there is
                raise
        number += 1
        _, unsound, num_wrong = _read(tier, [key_of(one) for one in range(number - 5, number)])
        assert not unsound
        assert num_wrong == 0


if __name__ == "__main__":
    main()
