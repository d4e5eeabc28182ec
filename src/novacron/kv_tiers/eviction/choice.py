"""Policies by name, as settings and the simulator have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.arc import ArcOrder
from novacron.kv_tiers.eviction.chained import ChainedPolicy, never
from novacron.kv_tiers.eviction.cost import CostConfig, CostOrder
from novacron.kv_tiers.eviction.learned import LearnedOrder
from novacron.kv_tiers.eviction.lfu import LfuOrder
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import LeafOrder, MayGo
from novacron.kv_tiers.eviction.ttl import TtlOrder

PolicyName = Literal["lru", "lfu", "ttl", "arc", "cost", "learned"]
POLICY_NAMES: Final[tuple[PolicyName, ...]] = get_args(PolicyName)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """A policy and what it can be told. `ttl_s` is for ttl alone, `cost` for cost alone."""

    name: PolicyName = "learned"
    ttl_s: float = 3600.0
    cost: CostConfig = field(default_factory=CostConfig)

    def __post_init__(self) -> None:
        if self.name not in POLICY_NAMES:
            raise ConfigError(
                f"There is no eviction policy '{self.name}'; there are {', '.join(POLICY_NAMES)}."
            )
        if not self.ttl_s > 0:
            raise ConfigError(f"The time to live is {self.ttl_s!r} s: give a positive one.")


def make_policy(
    config: PolicyConfig, num_blocks: int, is_protected: MayGo = never
) -> ChainedPolicy:
    """For a tier that holds so many blocks."""
    return ChainedPolicy(
        _make_order(config, num_blocks), num_tombstones=num_blocks, is_protected=is_protected
    )


def _make_order(config: PolicyConfig, num_blocks: int) -> LeafOrder:
    match config.name:
        case "lru":
            return LruOrder()
        case "lfu":
            return LfuOrder()
        case "ttl":
            return TtlOrder(config.ttl_s)
        case "arc":
            return ArcOrder(num_blocks)
        case "cost":
            return CostOrder(config.cost)
        case "learned":
            return LearnedOrder(num_blocks)
