"""Settings from flags, environment and file, each with its origin.

A flag wins over the environment, that over the file, and that over the default. Called once, by
cli/; nothing else in NovaCron reads the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from novacron.config.cache import CacheConfig
from novacron.config.cluster import ClusterConfig
from novacron.config.engine import EngineConfig, RanksApart, SpeculativeConfig, WatchConfig
from novacron.config.file_layer import file_layer
from novacron.config.guard import GuardConfig
from novacron.config.identity import IdentityConfig
from novacron.config.keys import COMPONENTS, KEYS
from novacron.config.layer import Layer, Origin, WithoutEffect, did_you_mean
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.config.server import ServerConfig
from novacron.config.tenant_settings import TenantConfig
from novacron.errors import ConfigError

Component = TypeVar(
    "Component",
    ModelConfig,
    CacheConfig,
    SchedulerConfig,
    SpeculativeConfig,
    WatchConfig,
    GuardConfig,
    ClusterConfig,
    ServerConfig,
    IdentityConfig,
    TenantConfig,
)

_PREFIX = "NOVACRON_"
_VARIABLE_ALIASES = {"VLLM_API_KEY": "api_key", "XDG_CACHE_HOME": "cache_dir"}
_NOT_SETTINGS = {"NOVACRON_CONFIG", "NOVACRON_TORCH"}  # the file; what tools/bootstrap.py installs
_KUBERNETES_NAME = re.compile(r"\w+_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))(_\w+)?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run. `origins` has an entry for every key of config/keys.py."""

    engine: EngineConfig
    server: ServerConfig
    identity: IdentityConfig
    guard: GuardConfig
    origins: Mapping[str, Origin]
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tenants: TenantConfig = field(default_factory=TenantConfig)
    without_effect: tuple[WithoutEffect, ...] = ()
    warnings: tuple[str, ...] = ()


def load(*, file: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Merge the sources; without `file`, that of NOVACRON_CONFIG. Flags that are None, an empty
    variable and an empty YAML value mean "not given". Raises ConfigError.
    """
    if file is None and env.get("NOVACRON_CONFIG"):
        file = Path(env["NOVACRON_CONFIG"])
    layers = [
        Layer() if file is None else file_layer(file),
        _environment_layer(env),
        _flag_layer(flags),
    ]
    values: dict[str, object] = {}
    origins = dict.fromkeys(KEYS, Origin("default"))
    for layer in layers:
        values |= layer.values
        origins |= layer.origins
    server = _build(ServerConfig, values, origins)
    cluster = _build(ClusterConfig, values, origins)
    engine = EngineConfig(
        model=_build(ModelConfig, values, origins),
        cache=_build(CacheConfig, values, origins),
        scheduler=_build(SchedulerConfig, values, origins),
        speculative=_build(SpeculativeConfig, values, origins),
        watch=_build(WatchConfig, values, origins),
        apart=RanksApart(
            hosts=cluster.rank_hosts,
            link_key=cluster.link_key,
            link_timeout=cluster.link_timeout,
            compression=cluster.activation_compression,
        ),
        stream_flush_interval=server.stream_flush_interval,
        heartbeat_timeout=server.heartbeat_timeout,
        step_timeout=server.step_timeout,
        canary_interval=server.canary_interval,
        canary_timeout=server.canary_timeout,
        log_level=server.log_level,
        log_format=server.log_format,
    )
    without_effect = tuple(one for layer in layers for one in layer.without_effect)
    return Settings(
        engine=engine,
        server=server,
        identity=_build(IdentityConfig, values, origins),
        cluster=cluster,
        origins=origins,
        guard=_build(GuardConfig, values, origins),
        tenants=_build(TenantConfig, values, origins),
        without_effect=without_effect,
        warnings=(
            *(warning for layer in layers for warning in layer.warnings),
            *(f"{one.key} has no effect: {one.reason} ({one.origin})." for one in without_effect),
        ),
    )


def _build(
    component: type[Component], values: Mapping[str, object], origins: Mapping[str, Origin]
) -> Component:
    own: dict[str, Any] = {
        name: value for name, value in values.items() if _component_of(name) is component
    }
    try:
        return component(**own)
    except ConfigError as error:
        key = str(error).partition(" ")[0]  # `require` puts it first
        origin = origins.get(key, Origin("default"))
        raise ConfigError(f"{error} (given by: {origin})") from None


def _component_of(name: str) -> type[object]:
    return COMPONENTS[KEYS[name].component]


def _flag_layer(flags: Mapping[str, object]) -> Layer:
    layer = Layer()
    for name, value in flags.items():
        if name not in KEYS:
            raise ConfigError(f"There is no setting '{name}'.{did_you_mean(name, KEYS)}")
        if value not in (None, ()):
            layer.set(KEYS[name], value, Origin("flag", KEYS[name].flag))
    return layer


def _environment_layer(env: Mapping[str, str]) -> Layer:
    layer = Layer()
    known = {key.variable: key for key in KEYS.values()}
    for variable, value in env.items():
        if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS or not value:
            continue
        if _describes_kubernetes_service(variable, value):
            continue
        if variable in known:
            layer.set(known[variable], value, Origin("env", variable))
        else:
            hint = did_you_mean(variable, known)
            layer.warnings.append(f"The environment variable {variable} is not known.{hint}")
    for variable, name in _VARIABLE_ALIASES.items():
        if env.get(variable) and name not in layer.values:
            layer.set(KEYS[name], env[variable], Origin("env", variable))
    return layer


def _describes_kubernetes_service(variable: str, value: str) -> bool:
    """Kubernetes sets NOVACRON_PORT=tcp://... and the like beside a service called "novacron"."""
    is_link = variable.endswith("_PORT") and value.startswith(("tcp://", "udp://"))
    return is_link or _KUBERNETES_NAME.fullmatch(variable) is not None
