"""What engines say of themselves at the moment of a scrape."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.observability.replica_values import ReplicaSnapshot
from novacron.records.output import EngineStats, ModelSpec


@dataclass(frozen=True, kw_only=True)
class VariantSnapshot:
    """What the engine of one variant says of itself."""

    name: str
    state: str
    stats: EngineStats
    is_default: bool
    num_left: int


@dataclass(frozen=True, kw_only=True)
class EngineSnapshot:
    """`spec` is None while it loads. Of
    several variants, `stats` are sums; the first is the main one."""

    state: str
    states: tuple[str, ...]
    stats: EngineStats
    spec: ModelSpec | None
    num_restarts: int
    variants: tuple[VariantSnapshot, ...]
    replicas: tuple[ReplicaSnapshot, ...] = ()
