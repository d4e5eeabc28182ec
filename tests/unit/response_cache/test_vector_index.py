from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.response_cache.identity import Key
from novacron.response_cache.vector_index import VectorIndex

HERE, THERE = ("t1", b"a"), ("t2", b"a")
vectors = st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3).filter(any)


@given(st.lists(vectors, min_size=1, max_size=30), vectors, st.floats(-1, 1))
def test_a_search_finds_what_comparing_all_of_them_finds(
    known: list[list[float]], asked: list[float], threshold: float
) -> None:
    index = VectorIndex()
    for number, vector in enumerate(known):
        index.add(HERE, vector, str(number), Key("t1", str(number)))
    matrix = np.array(known) / np.linalg.norm(known, axis=1, keepdims=True)
    cosines = matrix @ (np.array(asked) / np.linalg.norm(asked))
    found = index.search(HERE, asked, threshold, most=100)
    sure = {str(i) for i, cosine in enumerate(cosines) if cosine >= threshold + 1e-5}
    possible = {str(i) for i, cosine in enumerate(cosines) if cosine >= threshold - 1e-5}
    assert sure <= {one.text for one in found} <= possible
    assert [one.similarity for one in found] == sorted((o.similarity for o in found), reverse=True)
    for one in found:
        assert one.similarity == pytest.approx(float(cosines[int(one.text)]), abs=1e-5)
    assert index.search(THERE, asked, -1.0, most=100) == []


def test_the_newest_of_a_partition_are_kept_and_the_newest_partitions() -> None:
    index = VectorIndex(most=6, most_of_partition=4)
    for number in range(9):
        index.add(HERE, [1.0, 0.0], str(number), Key("t1", str(number)))
    found = index.search(HERE, [1.0, 0.0], 0.5, most=10)
    assert {one.text for one in found} == {"5", "6", "7", "8"}
    for number in range(3):
        index.add(THERE, [1.0, 0.0], str(number), Key("t2", str(number)))
    assert index.search(HERE, [1.0, 0.0], 0.5, most=10) == []
    assert len(index) == 3


def test_the_same_question_is_kept_once_and_tenants_can_be_forgotten() -> None:
    index = VectorIndex()
    for digest in ("old", "new"):
        index.add(HERE, [1.0, 0.0], "question", Key("t1", digest))
    index.add(THERE, [1.0, 0.0], "question", Key("t2", "x"))
    [found] = index.search(HERE, [1.0, 0.0], 0.5, most=10)
    assert found.key.digest == "new"
    index.forget("t1")
    assert len(index) == 1
    assert index.search(THERE, [1.0, 0.0], 0.5, most=10)
    assert index.search(THERE, [1.0, 0.0, 0.0], 0.5, most=10) == []
    index.forget(None)
    assert len(index) == 0
