"""What the hosts of a model have to offer, before it is known what each of them gets."""

from __future__ import annotations

import socket
from dataclasses import replace

from novacron.config.cache import CacheConfig
from novacron.config.engine import SharedDevice
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.hosts.balance import HostFacts
from novacron.executor.hosts.host_speed import measure_bytes_per_s
from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.orders import Offer
from novacron.executor.hosts.own_part import what_computes
from novacron.executor.worker import Progress


def facts_here(
    whole: Blueprint, cache: CacheConfig, shared: SharedDevice, num_replicas: int
) -> HostFacts:
    """Of the host where the engine is, with those of other replicas: as the first of them found
    it."""
    memory = measure_device_memory(whole.device, cache)
    if shared.free_bytes is not None:
        memory = replace(memory, free_bytes=shared.free_bytes)
    return HostFacts(socket.gethostname(), memory, measure_bytes_per_s(), num_replicas)


def facts_of_others(
    team: HostTeam,
    whole: Blueprint,
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    progress: Progress,
) -> list[HostFacts]:
    """Those of all that are named, once they are there. Each is there for one replica. Raises
    ConfigError and ModelLoadError."""
    theirs = replace(model, data_parallel_size=1)
    offers = team.join(theirs, cache, scheduler, lambda fraction: progress("connect", fraction))
    computes = what_computes(whole)
    for offer in offers:
        _refuse_other(offer, computes)
    return [HostFacts(one.host, one.memory, one.bytes_per_s) for one in offers]


def _refuse_other(offer: Offer, computes: str) -> None:
    if offer.computes != computes:
        raise ConfigError(
            f"rank_hosts: the host {offer.host} computes with {offer.computes}, and this one with "
            f"{computes}: answers would not be those of one host. Install the same NovaCron, built "
            "for processors alike, on all, and set dtype and kernels if they differ."
        )
