"""VectorIndex: the questions that were answered, by their vectors, in this process.

Questions are compared only within a partition: those whose answers may stand for each other, by
tenant, model, and everything around the question. A flat search: at the sizes that are kept, one
product of a matrix and a vector takes well under a millisecond, and nothing is ever missed.

Shapes: N questions of a partition, D numbers of a vector.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from novacron.response_cache.identity import Key


@dataclass(frozen=True)
class Similar:
    """A question that was answered. `similarity` is the cosine."""

    similarity: float
    text: str
    key: Key


@dataclass
class _Partition:
    vectors_ND: NDArray[np.float32]
    texts: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    next_place: int = 0  # that the next question takes, once all are taken


class VectorIndex:
    """Of each partition the newest `most_of_partition` questions are kept, and of all together no
    more than `most`: partitions that were used longest ago leave."""

    def __init__(self, *, most: int = 65536, most_of_partition: int = 2048) -> None:
        self._most = most
        self._most_of_partition = most_of_partition
        self._partitions: OrderedDict[tuple[str, bytes], _Partition] = OrderedDict()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def search(
        self, partition: tuple[str, bytes], vector: Sequence[float], threshold: float, most: int
    ) -> list[Similar]:
        """The nearest with at least the cosine `threshold`, nearest first. `partition` is the
        tenant's tag and a digest of the rest."""
        found = self._partitions.get(partition)
        if found is None:
            return []
        self._partitions.move_to_end(partition)
        vector_D = _unit(vector)
        num = len(found.texts)
        if vector_D.shape != found.vectors_ND.shape[1:]:
            return []  # of another model
        similarities_N = found.vectors_ND[:num] @ vector_D
        near = [int(place) for place in np.flatnonzero(similarities_N >= threshold)]
        near.sort(key=lambda place: -float(similarities_N[place]))
        return [
            Similar(float(similarities_N[place]), found.texts[place], found.keys[place])
            for place in near[:most]
        ]

    def add(
        self, partition: tuple[str, bytes], vector: Sequence[float], text: str, key: Key
    ) -> None:
        vector_D = _unit(vector)
        found = self._partitions.get(partition)
        if found is None or found.vectors_ND.shape[1:] != vector_D.shape:
            self._drop(partition)
            found = self._partitions[partition] = _Partition(np.zeros((8, len(vector_D)), "f4"))
        self._partitions.move_to_end(partition)
        if text in found.texts:
            place = found.texts.index(text)
        elif len(found.texts) < self._most_of_partition:
            place = len(found.texts)
            found.texts.append(text)
            found.keys.append(key)
            self._num += 1
            if place == len(found.vectors_ND):
                found.vectors_ND = np.concatenate([found.vectors_ND, found.vectors_ND])
        else:
            place = found.next_place
            found.next_place = (place + 1) % self._most_of_partition
        found.vectors_ND[place] = vector_D
        found.texts[place], found.keys[place] = text, key
        while self._num > self._most:
            self._drop(next(iter(self._partitions)))

    def forget(self, tenant: str | None) -> None:
        """Those of a tenant, by its tag, or all."""
        for partition in [p for p in self._partitions if tenant in (None, p[0])]:
            self._drop(partition)

    def _drop(self, partition: tuple[str, bytes]) -> None:
        dropped = self._partitions.pop(partition, None)
        if dropped is not None:
            self._num -= len(dropped.texts)


def _unit(vector: Sequence[float]) -> NDArray[np.float32]:
    vector_D = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(vector_D))
    return vector_D / np.float32(length) if length else vector_D
