"""From settings to a client of engines on other hosts: those that wait for us, or those that Ray
places. Imports no Ray: what speaks to it is a process of its own."""

from __future__ import annotations

import importlib.util
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from novacron.cli.cluster.ray_node import LISTEN_PORTS, token_environment
from novacron.cli.link_key import link_key_file
from novacron.cluster.ray_hosts import RayHosts, RaySettings
from novacron.cluster.replicas_client import ReplicasClient
from novacron.cluster.same_model import SameModel
from novacron.config.cluster import ClusterConfig
from novacron.config.engine import EngineConfig
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, read_or_make_key
from novacron.engine.link.linked_engine import FindHost, LinkedEngine
from novacron.engine.process_client import ProcessClient
from novacron.errors import ConfigError


def remote_engines(config: EngineConfig, cluster: ClusterConfig, path: Path) -> ReplicasClient:
    """A replica for each of engine_hosts, or as many as data_parallel_size on nodes of a Ray
    cluster. Raises ConfigError."""
    if config.model.variants:
        raise ConfigError(
            "variants are not served on several hosts yet. Start a server for each precision."
        )
    if cluster.executor == "ray":
        return _on_ray(config, cluster, path)
    addresses = [EngineAddress.parse(text, "engine_hosts") for text in cluster.engine_hosts]
    if len(set(addresses)) < len(addresses):
        raise ConfigError(
            "engine_hosts names a host twice. Name each once; a second engine there needs a port "
            "of its own."
        )
    num_replicas = config.model.data_parallel_size
    if num_replicas not in (1, len(addresses)):
        raise ConfigError(
            f"data_parallel_size is {num_replicas}, but engine_hosts names {len(addresses)}: each "
            "host has one replica. Leave data_parallel_size out."
        )
    keys = read_or_make_key(link_key_file(cluster.link_key))
    places = [_at(address) for address in addresses]
    return linked_replicas(config, cluster, path, keys, places)


def _on_ray(config: EngineConfig, cluster: ClusterConfig, path: Path) -> ReplicasClient:
    """The key is made for this run: nodes are told its public half through Ray."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "executor is 'ray', but Ray is not installed here: pip install 'novacron[ray]'"
        )
    keys = KeyPair.make()
    hosts = RayHosts(
        RaySettings(cluster.ray_address, cluster.resources(), keys.public, LISTEN_PORTS),
        environment=os.environ | token_environment(),
    )
    num_replicas = config.model.data_parallel_size
    places = [partial(hosts.find, f"replica-{number}") for number in range(num_replicas)]
    return linked_replicas(config, cluster, path, keys, places, hosts)


def linked_replicas(
    config: EngineConfig,
    cluster: ClusterConfig,
    path: Path,
    keys: KeyPair,
    places: Sequence[FindHost],
    hosts: RayHosts | None = None,
) -> ReplicasClient:
    """`places` tell where each replica is to be found; `hosts` places further ones."""
    same = SameModel()
    server = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    model = replace(
        config.model,
        model=_as_others_know_it(config.model.model),
        data_parallel_size=1,  # of its host, each has all
    )
    theirs = replace(config, model=model)

    def make(name: str, _: EngineConfig) -> ProcessClient:
        number = int(name.rpartition("-")[2])
        find = places[number] if hosts is None else partial(hosts.find, name)

        def make_process(_: EngineConfig, path: Path) -> LinkedEngine:
            return LinkedEngine(
                theirs, find=find, keys=keys, server=server, timeout_s=cluster.link_timeout
            )

        return ProcessClient(theirs, path, make_process=make_process, check=same.check)

    ours = replace(config, model=replace(config.model, data_parallel_size=len(places)))
    if hosts is None:
        return ReplicasClient(ours, make, apart=True, most=len(places))
    return ReplicasClient(ours, make, apart=True, find_nodes=lambda: hosts.nodes)


def _at(address: EngineAddress) -> FindHost:
    async def find() -> EngineAddress:
        return address

    return find


def _as_others_know_it(model: str) -> str:
    """A path without what only this process knows: where it was started."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model and path.exists() else model
