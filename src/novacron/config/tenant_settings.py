"""Settings of what may become of tenants' data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from novacron.config.setting import require, setting
from novacron.config.tenants import TenantPolicies, parse_policies


@dataclass(frozen=True, kw_only=True)
class TenantConfig:
    """What each tenant has agreed to, and how often what is too old is purged."""

    tenant_policies: tuple[Mapping[str, object], ...] = setting(
        (),
        "what may become of each tenant's data, as a list: whether prompts are kept, in which "
        "regions, for how long; see docs/privacy.md",
    )
    purge_interval: float = setting(
        3600.0, "time between two purges of what tenant_policies do not retain any longer", unit="s"
    )

    def __post_init__(self) -> None:
        parse_policies(self.tenant_policies)
        require(
            self.purge_interval > 0, "purge_interval", self.purge_interval,
            "give a duration such as 1h",
        )  # fmt: skip

    @cached_property
    def policies(self) -> TenantPolicies:
        return parse_policies(self.tenant_policies)
