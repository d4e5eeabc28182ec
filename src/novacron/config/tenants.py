"""`tenant_policies` in a configuration file: what may become of a tenant's data.

tenant_policies:
  - {name: acme, record_prompts: true, retain: {prompts: 7d, audit: 90d, usage: 400d}}
  - {name: clinic, regions: [eu-central, eu-west]}
  - {name: "*", response_cache: semantic}      # all others
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from novacron.config.listings import need, texts_of
from novacron.config.privacy import REGION
from novacron.config.quantities import parse_duration_s
from novacron.errors import ConfigError

EVERYONE_ELSE: Final = "*"
NOBODY: Final = "default"  # the tenant of servers that do not tell callers apart
KINDS: Final = ("audit", "usage", "prompts", "responses")
_KEY: Final = "tenant_policies"
_NAMES: Final = ("name", "record_prompts", "regions", "response_cache", "retain")

CacheChoice = Literal["off", "exact", "semantic"]
_CHOICES: Final[tuple[CacheChoice, ...]] = ("off", "exact", "semantic")


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    """What a tenant has agreed to. `regions`: where its data may be; none named: anywhere.
    `response_cache` is the most that it takes part in: semantic is for those who say so.
    `retain_s`: how long each kind is kept; kinds that are not there are kept until somebody purges
    them."""

    record_prompts: bool = False
    regions: tuple[str, ...] = ()
    response_cache: CacheChoice = "exact"
    retain_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TenantPolicies:
    """Policies by the tenant's id. One that has none has that of everyone else. `stored` are
    those of a database, if there is one: they change while a server runs, and those of the settings
    go first."""

    by_name: Mapping[str, TenantPolicy] = field(default_factory=dict)
    stored: Mapping[str, TenantPolicy] | None = None

    def of(self, tenant: str) -> TenantPolicy:
        """An empty `tenant` is that of servers that do not tell callers apart."""
        found = self.by_name.get(tenant or NOBODY)
        if found is None and self.stored is not None:
            found = self.stored.get(tenant or NOBODY)
        return found or self.by_name.get(EVERYONE_ELSE) or (_NONE if tenant else _OWN)

    @property
    def named(self) -> tuple[str, ...]:
        """Everybody who has a policy of his own."""
        stored = () if self.stored is None else tuple(self.stored)
        return tuple(name for name in (*self.by_name, *stored) if name != EVERYONE_ELSE)

    @property
    def record_prompts(self) -> bool:
        """Whether anybody wants prompts kept."""
        return any(self.of(name).record_prompts for name in (*self.by_name, *self.named))

    @property
    def retains(self) -> bool:
        """Whether anything is to be purged by itself, or may be one day."""
        return self.stored is not None or any(policy.retain_s for policy in self.by_name.values())


_NONE: Final = TenantPolicy()
_OWN: Final = TenantPolicy(response_cache="semantic")  # who has the server to himself has set it


def parse_policies(listed: Sequence[Mapping[str, object]]) -> TenantPolicies:
    """Raises ConfigError."""
    by_name: dict[str, TenantPolicy] = {}
    for one in listed:
        name = one.get("name")
        need(isinstance(name, str) and bool(name), _KEY, "one has no name")
        need(name not in by_name, _KEY, f"'{name}' stands there twice")
        for given in one:
            need(given in _NAMES, _KEY, f"'{name}' has '{given}'", *_NAMES)
        by_name[str(name)] = _policy(str(name), one)
    return TenantPolicies(by_name)


def _policy(name: str, one: Mapping[str, Any]) -> TenantPolicy:
    record = one.get("record_prompts", False)
    need(isinstance(record, bool), _KEY, f"record_prompts of '{name}' is neither true nor false")
    given = one.get("response_cache", "exact")
    given = "off" if given is False else given  # as YAML reads off
    choice = next((known for known in _CHOICES if known == given), None)
    need(choice is not None, _KEY, f"response_cache of '{name}' is '{given}'", *_CHOICES)
    assert choice is not None
    regions = texts_of(one.get("regions", ()), _KEY, f"regions of '{name}'")
    for region in regions:
        need(REGION.fullmatch(region) is not None, _KEY, f"'{region}' of '{name}' is no region")
    return TenantPolicy(
        record_prompts=record,
        regions=regions,
        response_cache=choice,
        retain_s=_retention(name, one.get("retain", {})),
    )


def _retention(name: str, given: object) -> dict[str, float]:
    need(isinstance(given, Mapping), _KEY, f"retain of '{name}' is no list of kinds and durations")
    assert isinstance(given, Mapping)
    kept = {}
    for kind, duration in given.items():
        need(kind in KINDS, _KEY, f"retain of '{name}' has '{kind}'", *KINDS)
        try:
            kept[kind] = parse_duration_s(duration)
        except ConfigError as error:
            raise ConfigError(f"{_KEY} cannot be used: {kind} of '{name}': {error}") from None
        need(kept[kind] > 0, _KEY, f"{kind} of '{name}' is no positive duration")
    return kept
