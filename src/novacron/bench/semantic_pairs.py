"""The labelled questions: groups that ask the same in other words, beside near misses.

Each line of data/semantic_pairs.jsonl is a group: `same`, questions of one meaning; `near`, such as
look like them and mean something else (the opposite, another number, name, time or direction).
Pairs within `same` should hit. Pairs of `same` with `near`, and within `near`, must not; nor may
any pair across groups. Rates are told of the odd groups: the words that response_cache/wording.py
passes over were revised by the misses of the even ones. That is no independent test: one hand wrote
questions and lists, and the first list already had synonyms that odd groups use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import msgspec

_FILE = Path(__file__).parent / "data" / "semantic_pairs.jsonl"

Pair = tuple[str, str]


class Group(msgspec.Struct, frozen=True):
    same: tuple[str, ...]
    near: tuple[str, ...]

    @property
    def questions(self) -> tuple[str, ...]:
        return self.same + self.near


@dataclass(frozen=True)
class Rates:
    """Of pairs of one meaning, how many hit; of near misses and of pairs across groups, how many
    would have been answered wrongly."""

    hits: float
    false_near: float
    false_across: float
    num_same: int
    num_near: int
    num_across: int


def read_groups() -> list[Group]:
    lines = _FILE.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Group) for line in lines]


def odd_groups(groups: list[Group]) -> list[Group]:
    return groups[1::2]


def rates(groups: list[Group], is_hit: Callable[[str, str], bool]) -> Rates:
    same = [pair for group in groups for pair in combinations(group.same, 2)]
    near = [pair for group in groups for pair in _near_misses(group)]
    across = [
        pair
        for one, other in combinations(groups, 2)
        for pair in product(one.questions, other.questions)
    ]

    def share(pairs: list[Pair]) -> float:
        return sum(is_hit(*pair) for pair in pairs) / max(1, len(pairs))

    return Rates(share(same), share(near), share(across), len(same), len(near), len(across))


def _near_misses(group: Group) -> Iterator[Pair]:
    yield from product(group.same, group.near)
    yield from combinations(group.near, 2)
