from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.models.packed_cache import PackedCache


def contents(seed: int = 0, size: int = 200_000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(256, (length,), dtype=torch.uint8, generator=generator)
        for name, length in (("a", size), ("b", 70_001))
    }


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    return PackedCache(tmp_path / "packed", 2**20, fewest_bytes=0)


def same(found: object, expected: dict[str, Tensor]) -> bool:
    assert isinstance(found, dict)
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def test_what_is_kept_is_found(cache: PackedCache) -> None:
    assert cache.find("k") is None
    cache.keep("k", contents())
    found = cache.find("k")
    assert same(found, contents())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (found or {}).values())
    assert cache.find("other") is None


@pytest.mark.parametrize("damage", ["cut", "zeroed", "mark", "header", "empty"])
def test_a_damaged_file_is_not_used(cache: PackedCache, tmp_path: Path, damage: str) -> None:
    cache.keep("k", contents())
    path = tmp_path / "packed" / "k.packed"
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            data = data[:-50_000]
        case "zeroed":
            data[100_000:180_000] = bytes(80_000)
        case "mark":
            data[0] ^= 1
        case "header":
            data[20:30] = bytes(10)
        case "empty":
            data = bytearray()
    path.write_bytes(data)
    assert cache.find("k") is None
    cache.keep("k", contents())
    assert same(cache.find("k"), contents())


def test_what_was_used_longest_ago_makes_room(cache: PackedCache, tmp_path: Path) -> None:
    for age, key in enumerate(("newer", "older")):
        cache.keep(key, contents(size=400_000))
        os.utime(tmp_path / "packed" / f"{key}.packed", (1000 - age, 1000 - age))
    cache.keep("now", contents(size=400_000))
    assert cache.find("older") is None
    assert cache.find("newer") is not None
    assert cache.find("now") is not None


def test_only_sizes_that_are_worth_it(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path, 1000, fewest_bytes=100)
    assert [cache.is_for(size) for size in (99, 100, 1000, 1001)] == [False, True, True, False]
    assert not PackedCache(tmp_path, 0, fewest_bytes=100).is_for(100)


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = PackedCache(tmp_path / "file", 2**20)
    cache.keep("k", contents())
    assert cache.find("k") is None


def test_several_writers_at_once_leave_a_whole_file(cache: PackedCache, tmp_path: Path) -> None:
    """As two servers that start together: a reader meets a whole file or none, at any time."""
    writers = [threading.Thread(target=cache.keep, args=("k", contents())) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = cache.find("k")
        assert found is None or same(found, contents())
    assert same(cache.find("k"), contents())
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["k.packed"]
