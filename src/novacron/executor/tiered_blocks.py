"""TieredBlocks: the blocks of an executor, and the KV tiers below them, if there are any."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from novacron.config.cache import CacheConfig
from novacron.config.folders import cache_folder
from novacron.config.model import ModelConfig
from novacron.executor.block_part import WHOLE, BlockPart
from novacron.executor.kv_codecs import codec_of_cache
from novacron.executor.kv_quality import check_profile, measurement_path
from novacron.executor.own_rank import OwnRank
from novacron.executor.tiers import open_tiers
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.model_version import weights_identity
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import TierSpec
from novacron.records.step import SchedulerOutput

_STORE_AT_END_S: Final = 2.0
_READY_BYTES: Final = 2**27  # of KV blocks: memory that the first requests need not wait for
_SHARE_READY: Final = 8


class TieredBlocks:
    """Opened when made, once the model has its weights. With several ranks of one host, by rank 0,
    whose blocks are those of all of them. `kv_identity`: what equal blocks agree in, all
    parts of them together. Raises ConfigError."""

    def __init__(
        self,
        rank: OwnRank,
        kv_identity: str,
        model: ModelConfig,
        cache: CacheConfig,
        *,
        part: BlockPart = WHOLE,
    ) -> None:
        kv_tensors, blueprint = rank.kv_tensors, rank.blueprint
        kv_tensors.populate(min(_READY_BYTES, kv_tensors.num_bytes // _SHARE_READY))
        if blueprint.rank == 0:  # what it has measured counts for all
            _require_measurement(rank, model, cache)
        opened = open_tiers(
            model,
            cache,
            kv_tensors,
            model_version=rank.version,
            kv_identity=kv_identity,
            part=part,
            codec_of=partial(codec_of_cache, tensors=kv_tensors, blueprint=blueprint),
        )
        self.specs: tuple[TierSpec, ...] = () if opened is None else opened.specs
        self._mover = None if opened is None else opened.mover

    def give_up(self, block_ids: Iterable[int]) -> None:
        """These are about to be written to, by whoever begins steps without saying which."""
        if self._mover is not None:
            self._mover.give_up(block_ids)

    def begin_step(self, step: SchedulerOutput | None) -> None:
        if self._mover is not None:
            self._mover.begin_step(step)

    def end_step(self) -> None:
        if self._mover is not None:
            self._mover.end_step()

    def forget_steps(self) -> None:
        """Those that have begun will not end."""
        if self._mover is not None:
            self._mover.forget_steps()

    def move(self, orders: BlockOrders) -> None:
        assert self._mover is not None, "there are no KV tiers"
        self._mover.order(orders)

    def news(self, wait_s: float) -> BlockNews | None:
        return None if self._mover is None else self._mover.news(wait_s)

    def blocks_of(self, scope: bytes) -> list[TierKeys]:
        """See BlockMover."""
        return [] if self._mover is None else self._mover.blocks_of(scope)

    def close(self) -> None:
        """What tiers still have to store gets a moment. Harmless when called again."""
        if self._mover is not None:
            self._mover.close(_STORE_AT_END_S)
            self._mover = None


def _require_measurement(rank: OwnRank, model: ModelConfig, cache: CacheConfig) -> None:
    """Of the whole model, where a profile compresses. Raises ConfigError."""
    blueprint = rank.blueprint
    formats = choose_kv_formats(cache, len(blueprint.config.layers), blueprint.kv_precision)
    weights = weights_identity(rank.digest, rank.all_stages.precision_identity)
    path = measurement_path(cache_folder(model), weights, formats, cache.block_size)
    check_profile(cache, path)
