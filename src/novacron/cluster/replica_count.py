"""Which replicas come, and which go, when their number changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from novacron.engine.client import EngineState

_OF_MORE_WORTH = (EngineState.DEAD, EngineState.UNLOADED, EngineState.DRAINING,
                  EngineState.LOADING, EngineState.READY)  # fmt: skip


def replica_name(number: int) -> str:
    return f"replica-{number}"


def names_to_come(names: Sequence[str], num_wanted: int) -> list[str]:
    """The lowest numbers that are free: who was there before has its place again."""
    free = (name for number in count() if (name := replica_name(number)) not in names)
    return [next(free) for _ in range(num_wanted - len(names))]


def names_to_go(states: Sequence[tuple[str, EngineState]], num_wanted: int) -> list[str]:
    """Of all replicas in their order: first those that do not serve, then the last ones."""
    places = range(len(states))
    least = sorted(places, key=lambda at: (_OF_MORE_WORTH.index(states[at][1]), -at))
    return [states[at][0] for at in least[: max(0, len(states) - num_wanted)]]
