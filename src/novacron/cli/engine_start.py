"""From settings to an engine process on its way. Imports no web framework and no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from novacron.config.engine import EngineConfig
from novacron.config.host_shares import of_replica, refuse_other_number_of_hosts
from novacron.config.load import Settings
from novacron.config.model import ModelConfig
from novacron.config.tenants import TenantPolicies
from novacron.engine.link.address import EngineAddress
from novacron.engine.model_path import resolve_model_path
from novacron.engine.process_client import ProcessClient
from novacron.engine.recovering_client import RecoveringClient, StartedClient
from novacron.errors import ConfigError

if TYPE_CHECKING:
    from novacron.engine.engine_group import MemberClient

BUNDLED_NAME = "novacron-demo"

ServedClient = StartedClient


class SpawnedClient(StartedClient, Protocol):
    """One that starts its engine process by itself."""

    def spawn(self) -> None: ...


def spawn_engine(
    settings: Settings, policies: TenantPolicies | None = None
) -> tuple[ServedClient, Settings]:
    """A client whose engine process has been started, and the settings with the model's name.
    `policies` of tenants are those of the settings, unless there are more.

    Raises ModelLoadError if there is no such model, and ConfigError for variants that contradict.
    """
    path = resolve_model_path(settings.engine.model.model)
    model = _named(settings.engine.model, path)
    settings = replace(settings, engine=replace(settings.engine, model=model))
    client = _make_client(settings, path)
    client.spawn()
    scheduler = settings.engine.scheduler
    return RecoveringClient(
        client,
        timeout_s=settings.server.recovery_timeout,
        most_waiting=scheduler.max_num_seqs + scheduler.max_queued_requests,
        seed=settings.engine.model.seed,
        regions_of=_regions_of(policies or settings.tenants.policies),
    ), settings


def _regions_of(policies: TenantPolicies) -> Callable[[str], tuple[str, ...]] | None:
    has_regions = any(policy.regions for policy in policies.by_name.values())
    if not has_regions and policies.stored is None:
        return None
    return lambda tenant: policies.of(tenant).regions


def _make_client(settings: Settings, path: Path) -> SpawnedClient:
    config = settings.engine
    refuse_bad_hosts(config)
    if settings.cluster.is_apart:
        from novacron.cli.remote_engines import remote_engines

        return remote_engines(config, settings.cluster, path)
    make_client: Callable[[EngineConfig], MemberClient] = partial(ProcessClient, model_path=path)
    if config.model.data_parallel_size > 1:
        from novacron.cluster.replicas_client import ReplicasClient

        make_one = make_client

        def make_replica(name: str, config: EngineConfig) -> MemberClient:
            return make_one(of_replica(config, int(name.rpartition("-")[2])))

        def make_replicas(config: EngineConfig) -> MemberClient:
            most = config.model.data_parallel_size if config.apart.hosts else None
            return ReplicasClient(config, make_replica, most=most)

        make_client = make_replicas
    if not config.model.variants:
        return make_client(config)

    from novacron.engine.variant_engines import main_variant, variant_engines
    from novacron.engine.variants_client import VariantsClient

    variants = variant_engines(config, main_variant(config.model, path))
    return VariantsClient(variants, make_client, config.watch)


def refuse_bad_hosts(config: EngineConfig) -> None:
    """What the engine would refuse too late to be quick. Raises ConfigError."""
    addresses = [EngineAddress.parse(text, "rank_hosts") for text in config.apart.hosts]
    if len(set(addresses)) < len(addresses):
        raise ConfigError(
            "rank_hosts names a host twice. Name each once; a second part there needs a novacron "
            "rank on a port of its own."
        )
    refuse_other_number_of_hosts(config, config.model.data_parallel_size)


def _named(model: ModelConfig, path: Path) -> ModelConfig:
    if model.served_model_name:
        return model
    if not model.model:
        return replace(model, served_model_name=(BUNDLED_NAME,))
    # A file may be a link to one with a meaningless name, as in the hub's cache.
    name = path.name if path.is_file() else path.resolve().name
    return replace(model, served_model_name=(name,))
