from __future__ import annotations

from novacron.bench.guard_chunkings import try_chunkings


def test_chunkings_have_things_to_mask_and_are_the_same_each_time() -> None:
    first = try_chunkings(200, seed=3)
    assert first == try_chunkings(200, seed=3)
    assert first.num_leaks == 0
    assert first.num_spans > 100
    assert first.most_held > 0
