"""Large tensors begin as zeros and ask for huge pages."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from novacron.kernels.pages import empty_pages, populate_pages, zero_pages

MIB = 2**20


def flags_of(tensor: torch.Tensor) -> list[str]:
    return noted_of(tensor, "VmFlags:")


def noted_of(tensor: torch.Tensor, name: str) -> list[str]:
    """What the system notes about the memory of a tensor, from /proc/self/smaps."""
    address, here = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        begin, dash, end = first.partition("-")
        if dash:
            here = int(begin, 16) <= address < int(end, 16)
        elif here and first == name:
            return rest.split()
    raise AssertionError("the tensor is nowhere")


@pytest.mark.parametrize("shape", [(3,), (5, 7, 11), (64, MIB)])
def test_pages_are_zero_at_first(shape: tuple[int, ...]) -> None:
    pages = zero_pages(shape, torch.uint8)
    assert pages.shape == shape
    assert not pages.flatten()[:: max(1, pages.numel() // 1000)].any()


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_empty_pages_are_aligned_to_lines_of_the_cache(size: int) -> None:
    pages = empty_pages((size, 3), torch.bfloat16)
    assert (pages.shape, pages.dtype) == ((size, 3), torch.bfloat16)
    assert pages.data_ptr() % 64 == 0


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or sys.platform != "linux",
    reason="this system has no transparent huge pages",
)
def test_only_large_memory_asks_for_huge_pages() -> None:
    assert "hg" in flags_of(zero_pages((64 * MIB,), torch.uint8))
    assert "hg" not in flags_of(zero_pages((MIB,), torch.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux provides memory ahead")
def test_memory_is_there_before_it_is_written_to_and_holds_what_it_held() -> None:
    pages = zero_pages((8 * MIB,), torch.uint8)
    pages[5 * MIB] = 7
    populate_pages(pages, 6 * MIB)
    deadline_s = time.monotonic() + 30
    while int(noted_of(pages, "Rss:")[0]) < 6 * 1024:
        assert time.monotonic() < deadline_s, "a kernel before 5.14?"
        time.sleep(0.01)
    assert pages[5 * MIB] == 7
    assert pages.sum() == 7
