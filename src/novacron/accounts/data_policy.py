"""What may become of a tenant's data, as it is kept beside accounts: the words of the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import msgspec

from novacron.config.tenants import CacheChoice, TenantPolicy, parse_policies
from novacron.errors import ConfigError

logger = logging.getLogger(__name__)

REFRESH_S: Final = 2.0


class DataPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/privacy.md. `retain`: durations by kind, such as 7d; a kind that is not there is
    kept. `regions`: none: anywhere."""

    record_prompts: bool = False
    retain: dict[str, str] = {}
    regions: tuple[str, ...] = ()
    response_cache: CacheChoice = "exact"


def meant(tenant: str, policy: DataPolicy) -> TenantPolicy:
    """Raises ConfigError for one that cannot be."""
    listed = {"name": tenant, **msgspec.to_builtins(policy)}
    return parse_policies((listed,)).by_name[tenant]


class Listed(Protocol):
    def list(self) -> dict[str, DataPolicy]: ...


class StoredPolicies(Mapping[str, TenantPolicy]):
    """Those of a database, by tenant, as they were when it was last looked at. Whoever serves calls
    `refresh` now and then, in a thread; who looks here waits for nothing."""

    def __init__(self, records: Listed) -> None:
        self._records = records
        self._known: dict[str, TenantPolicy] = {}
        self.refresh()

    def refresh(self) -> None:
        """Raises DatabaseUnavailable; then what was known stays."""
        known = {}
        for tenant, policy in self._records.list().items():
            try:
                known[tenant] = meant(tenant, policy)
            except ConfigError as error:  # of a newer version, which checked it by other rules
                logger.error("the policy of the tenant %s is not understood: %s", tenant, error)
                if tenant in self._known:
                    known[tenant] = self._known[tenant]
        self._known = known

    def __getitem__(self, tenant: str) -> TenantPolicy:
        return self._known[tenant]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
