from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from novacron.kernels.shared_pages import EXTENT_BYTES, SharedPages
from novacron.parallel.shared_memory import Piece, SharedMemory

NUM_EXTENTS = 40


def memory_there(tensor: torch.Tensor) -> int:
    """Bytes of the mapping that are in memory."""
    address, here = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        begin, dash, end = first.partition("-")
        if dash:
            here = int(begin, 16) <= address < int(end, 16)
        elif here and first == "Rss:":
            return int(rest.split()[0]) * 1024
    raise AssertionError("the tensor is nowhere")


def settle(pages: SharedPages) -> None:
    deadline_s = time.monotonic() + 30
    while not pages.is_settled:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux provides memory ahead")
def test_shared_memory_is_there_ahead_of_its_use_and_holds_what_it_held() -> None:
    shared = SharedMemory({"blocks": Piece((NUM_EXTENTS * EXTENT_BYTES,), torch.uint8)})
    blocks = shared.tensors["blocks"]
    other = SharedMemory(
        {"blocks": Piece((NUM_EXTENTS * EXTENT_BYTES,), torch.uint8)}, shared.descriptor
    ).tensors["blocks"]
    assert blocks.data_ptr() % EXTENT_BYTES == other.data_ptr() % EXTENT_BYTES == 0
    blocks[3 * EXTENT_BYTES + 5] = 7
    pages = SharedPages(blocks)
    pages.want(0)
    settle(pages)
    before = memory_there(blocks)
    assert before >= 8 * EXTENT_BYTES
    pages.want(20 * EXTENT_BYTES)
    settle(pages)
    assert before < memory_there(blocks) < NUM_EXTENTS * EXTENT_BYTES
    pages.want(NUM_EXTENTS * EXTENT_BYTES)
    settle(pages)
    assert memory_there(blocks) == NUM_EXTENTS * EXTENT_BYTES
    other[9 * EXTENT_BYTES] = 4
    assert int(blocks.sum()) == 11
    shared.close_descriptor()


def test_memory_that_is_smaller_than_an_extent_is_left_alone() -> None:
    pages = SharedPages(torch.zeros(1000, dtype=torch.uint8))
    pages.want(1000)
    assert pages.is_settled
