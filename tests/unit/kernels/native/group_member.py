"""One process of a group, for test_rank_group: adds up numbers with the others, and checks them.

    group_member.py LIBRARY DESCRIPTOR RANK SIZE ROUNDS PATIENCE_S [BUSY_S]

BUSY_S: in its second round, it computes something else for so long.

Writes "joined", then one line: "right", "wrong ROUND", or "lost REASON RANK". SIZE is 1, 2 or 4:
other numbers of partial sums are not added. Knows the library only, so that it starts in no time.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import sys
import time

import numpy as np

HEADER_BYTES, MOST = 4096, 3000


class AddPartials(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("group", "exchange")),
        *((name, ctypes.c_void_p) for name in ("partials", "bias", "residual", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "size")),
        *((name, ctypes.c_int64) for name in ("rank_stride", "residual_stride", "out_stride")),
        *((name, ctypes.c_int32) for name in ("type", "ranks")),
    )


def memory_bytes(size: int) -> int:
    return HEADER_BYTES + 2 * size * MOST * 4


def numbers(rank: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng((rank, turn)).integers(-100, 100, count).astype(np.float32)


def main() -> None:
    path, descriptor, rank, size, rounds, patience_s, *busy_s = sys.argv[1:]
    rank, size = int(rank), int(size)
    library = ctypes.CDLL(path)
    library.novacron_open.restype = library.novacron_join.restype = ctypes.c_void_p
    shared = mmap.mmap(int(descriptor), memory_bytes(size))
    base = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    context = ctypes.c_void_p(library.novacron_open(b"portable", 1))
    group = ctypes.c_void_p(
        library.novacron_join(ctypes.c_void_p(base), rank, size, ctypes.c_double(float(patience_s)))
    )
    print("joined", flush=True)
    areas = np.frombuffer(shared, np.float32, offset=HEADER_BYTES).reshape(2, size, MOST)
    pauses, sizes = random.Random(rank), random.Random(0)
    for turn in range(int(rounds)):
        count = sizes.choice((1, 7, 64, 1000, MOST))
        if pauses.random() < 0.01:
            time.sleep(pauses.random() * 0.004)
        end_s = time.monotonic() + float(*busy_s) if turn == 1 else 0.0
        while time.monotonic() < end_s:
            pass
        area = areas[turn % 2]
        area[rank, :count] = numbers(rank, turn, count)
        out = np.empty(count, np.float32)
        call = AddPartials(
            group=group, partials=area.ctypes.data, out=out.ctypes.data, rows=1, size=count,
            rank_stride=MOST, ranks=size,
        )  # fmt: skip
        if library.novacron_add_partials(context, ctypes.byref(call)):
            lost = ctypes.c_int32()
            reason = library.novacron_loss(group, ctypes.byref(lost))
            print("lost", reason, lost.value, flush=True)
            return
        if not np.array_equal(out, sum(numbers(other, turn, count) for other in range(size))):
            print("wrong", turn, flush=True)
            return
    print("right", flush=True)


if __name__ == "__main__":
    main()
