"""Every setting as one flat table, read off the dataclasses of the components.

`load`, `explain`, the flags of the command line and docs/configuration.md all come from here, so a
new field needs nothing but its declaration. A name is unique over all components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import get_type_hints

from novacron.config.cache import CacheConfig
from novacron.config.cluster import ClusterConfig
from novacron.config.engine import SpeculativeConfig, WatchConfig
from novacron.config.guard import GuardConfig
from novacron.config.identity import IdentityConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.config.server import ServerConfig
from novacron.config.tenant_settings import TenantConfig

Component = (
    ModelConfig
    | CacheConfig
    | SchedulerConfig
    | SpeculativeConfig
    | WatchConfig
    | GuardConfig
    | ClusterConfig
    | ServerConfig
    | IdentityConfig
    | TenantConfig
)

COMPONENTS: Mapping[str, type[Component]] = {
    "model": ModelConfig,
    "cache": CacheConfig,
    "scheduler": SchedulerConfig,
    "speculative": SpeculativeConfig,
    "watch": WatchConfig,
    "guard": GuardConfig,
    "cluster": ClusterConfig,
    "server": ServerConfig,
    "identity": IdentityConfig,
    "tenants": TenantConfig,
}


@dataclass(frozen=True)
class Key:
    """One setting: where it belongs, what it may hold and what it means."""

    name: str
    component: str
    annotation: object
    default: object
    meaning: str
    flags: tuple[str, ...]
    unit: str
    secret: bool

    @property
    def is_list(self) -> bool:
        """Whether it holds texts, with commas between them where it is written as one."""
        return self.annotation == tuple[str, ...]

    @property
    def path(self) -> str:
        """Its place in a configuration file."""
        return f"{self.component}.{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "NOVACRON_" + self.name.upper()


def _keys_of(component: str) -> dict[str, Key]:
    config = COMPONENTS[component]
    annotations = get_type_hints(config)
    return {
        field.name: Key(
            name=field.name,
            component=component,
            annotation=annotations[field.name],
            default=field.default,
            meaning=field.metadata["help"],
            flags=field.metadata["flags"],
            unit=field.metadata["unit"],
            secret=field.metadata["secret"],
        )
        for field in fields(config)
    }


KEYS: Mapping[str, Key] = {
    name: key for component in COMPONENTS for name, key in _keys_of(component).items()
}
