"""What a rank on another host does before it has its part of the model: says what it has to offer,
and hears what it gets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.remote_tiers import require_extras
from novacron.executor.blueprint import META, Blueprint, dims_of, draw_blueprint
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.hosts.host_speed import measure_bytes_per_s
from novacron.executor.hosts.orders import Join, Load, Loading, Offer
from novacron.executor.hosts.part_blocks import allocate_part_cache
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.executor.hosts.stage_ranks import StageAlone
from novacron.executor.own_rank import OwnRank, RankLoader
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_threads import threads_on_host
from novacron.parallel.messages.links import OnLoss, OpenLink, TensorListener
from novacron.parallel.stages import stages_ending

Prepare = Callable[[ModelConfig, CacheConfig], tuple[ModelConfig, CacheConfig, Path]]
Computing = Callable[[bool], None]


@dataclass(frozen=True)
class OwnHost:
    """What a rank has of its host. `prepare` makes of the settings that a leader wants those that
    this host has, and the path of the model: it raises NovaCronError. `on_loss` ends this rank;
    `begin` is told what the group has agreed on, `computing` when a step begins and ends.
    `follows_a_crash`: of the process that had this rank's place before."""

    listener: TensorListener
    open_link: OpenLink
    prepare: Prepare
    on_loss: OnLoss
    begin: Callable[[Join], None] = lambda join: None
    computing: Computing = lambda begins: None
    follows_a_crash: bool = False


@dataclass(frozen=True)
class OwnPart:
    """What the leader wants this rank to have, nothing of it loaded yet."""

    join: Join
    load: Load
    blueprint: Blueprint
    model: ModelConfig
    cache: CacheConfig

    def load_rank(self, blueprint: Blueprint, post: RankPost) -> OwnRank:
        """`blueprint` is that of the part, joined with others. Raises ModelLoadError and
        GroupOver."""
        loader = self._loader(post)
        weights = loader.load_weights(blueprint)
        return loader.make_room(blueprint, weights, self.load, allocate=allocate_part_cache)

    def load_stage(self, ranks: StageAlone, post: RankPost) -> OwnRank:
        """The same of the first of the ranks of a stage, with the others. Raises ConfigError and
        EngineDead, too."""
        loader = self._loader(post)
        weights = loader.load_weights(ranks.blueprint, ranks.begin)
        return ranks.make_room(loader, weights, self.load)

    def _loader(self, post: RankPost) -> RankLoader:
        def report(phase: str, fraction: float) -> None:
            if phase == "weights":
                post.tell(Loading(fraction))

        return RankLoader(self.model, self.cache, self.join.scheduler, report)


def agree_on_part(join: Join, host: OwnHost, post: RankPost) -> OwnPart:
    """Raises NovaCronError and GroupOver."""
    model, cache, path = host.prepare(join.model, join.cache)
    require_extras(cache)
    num_threads = threads_on_host(model)
    torch.set_num_threads(num_threads)
    keep_freed_memory()
    whole = draw_blueprint(model, path, num_threads)
    post.tell(
        Offer(
            host=socket.gethostname(),
            memory=measure_device_memory(whole.device, cache),
            bytes_per_s=measure_bytes_per_s(),
            computes=what_computes(whole),
            follows_a_crash=host.follows_a_crash,
        )
    )
    load, _ = post.next_order()
    if not isinstance(load, Load):
        raise GroupOver(f"an order {type(load).__name__} came where a part was due")
    dims = dims_of(join.model)
    own = whole.of_rank(dims.rank_of_host(join.rank), dims, stages_ending(load.stops))
    return OwnPart(join, load, own, model, cache)


def what_computes(blueprint: Blueprint) -> str:
    """What must be alike on all hosts, beside the files."""
    kernels, weights = blueprint.kernels, blueprint.build(META).precision_identity
    return (
        f"{blueprint.dtype_name} on {blueprint.device.type}, {kernels.name} kernels "
        f"{kernels.weight_layout} {kernels.kv_layout}, weights {weights or 'as stored'}"
    )
