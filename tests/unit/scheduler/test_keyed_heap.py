from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.keyed_heap import KeyedHeap


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.tuples(st.integers(0, 3)))))
def test_the_first_is_that_of_the_lowest_key_and_the_earliest_of_those(
    changes: list[tuple[int, tuple[int] | None]],
) -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    expected: dict[int, tuple[int, int]] = {}
    for number, (item, key) in enumerate(changes):
        if key is None:
            heap.discard(item)
            expected.pop(item, None)
        else:
            if item not in expected or expected[item][0] != key[0]:
                expected[item] = key[0], number
            heap.set(item, *key)
        assert len(heap) == len(expected)
        assert heap.first() == min(expected, key=expected.__getitem__, default=None)
        assert heap.first_key() == (min(key for key, _ in expected.values()),) if expected else True


def test_keys_that_change_often_take_no_memory() -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    heap.set(0, -1)
    for key in range(10_000):
        heap.set(1, key)
    assert len(heap._entries) < 50
    assert heap.first() == 0
