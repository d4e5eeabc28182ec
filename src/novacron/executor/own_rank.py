"""What every executor makes of the rank in its own process, in the order in which it is done,
whoever the other ranks are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.memory_plan import MemoryPlan
from novacron.executor.worker import (
    Phases,
    Progress,
    allocate_cache,
    load_model,
    make_batch,
    version_of,
)
from novacron.models.decoder import Decoder
from novacron.records.output import DraftModelSpec, ModelSpec, TierSpec
from novacron.runner.captured_step import DecoderStep
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.model_runner import ModelRunner, TaintedBlocks
from novacron.runner.step_arrays import StepArrays


class BlockPlan(Protocol):
    """What a plan of memory says of blocks and of the longest context."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def max_model_len(self) -> int: ...


class Weights(NamedTuple):
    """A rank's decoder with its weights, of a checkpoint with this digest."""

    decoder: Decoder
    digest: str


def _nobody_else(digest: str) -> None:
    pass


class RankLoader:
    """Loads a rank with these settings. `phases` times the parts of start-up."""

    def __init__(
        self, model: ModelConfig, cache: CacheConfig, scheduler: SchedulerConfig, progress: Progress
    ) -> None:
        self.phases = Phases(progress)
        self._model, self._cache, self._scheduler = model, cache, scheduler
        self._progress = progress

    def load_weights(
        self, blueprint: Blueprint, join_others: Callable[[str], None] = _nobody_else
    ) -> Weights:
        """`join_others` gets the digest, and waits for the other ranks' weights. Raises
        ModelLoadError, and what `join_others` does."""
        with self.phases.timed("weights"):
            weights = Weights(
                *load_model(
                    blueprint, self._model, lambda fraction: self._progress("weights", fraction)
                )
            )
            join_others(weights.digest)
        return weights

    def make_room(
        self,
        blueprint: Blueprint,
        weights: Weights,
        plan: BlockPlan,
        *,
        memory: Tensor | None = None,
        arrays: StepArrays | None = None,
        allocate: Callable[[Blueprint, int, CacheConfig], KVTensors] | None = None,
    ) -> OwnRank:
        """Blocks and batch, once all weights are loaded. Blocks lie in `memory` and the arrays of
        a step in `arrays`, if ranks share them; `allocate` makes blocks of another form."""
        if blueprint.kernels.has_threads:
            torch.set_num_threads(1)  # two pools would wait for each other's cores
        cache = self._cache
        with self.phases.timed("kv_cache"):
            if allocate is None:
                kv_tensors = allocate_cache(blueprint, plan.num_blocks, cache, memory)
            else:
                kv_tensors = allocate(blueprint, plan.num_blocks, cache)
            weights.decoder.set_context(plan.max_model_len)
        batch = make_batch(
            blueprint,
            self._scheduler,
            block_size=cache.block_size,
            max_model_len=plan.max_model_len,
            arrays=arrays,
        )
        return OwnRank(blueprint, *weights, kv_tensors, batch, plan.max_model_len)


@dataclass(frozen=True)
class OwnRank:
    """A rank that is ready for steps; `decoder` has its layers, or its slices of them."""

    blueprint: Blueprint
    decoder: Decoder
    digest: str
    kv_tensors: KVTensors
    batch: InputBatch
    max_model_len: int

    @cached_property
    def all_stages(self) -> Decoder:
        """The slices of this rank in all stages: without weights, if there are others."""
        is_alone = self.blueprint.stage.count == 1
        return self.decoder if is_alone else self.blueprint.all_stages()

    @property
    def version(self) -> str:
        """Of the model, as it computes."""
        return version_of(self.digest, self.all_stages, self.max_model_len)

    def runner(self, step: DecoderStep, blocks: TaintedBlocks | None = None) -> ModelRunner:
        """For rank 0. `blocks`: those of other ranks with them."""
        return ModelRunner(
            step,
            self.kv_tensors if blocks is None else blocks,
            self.batch,
            eos_token_ids=self.blueprint.eos_token_ids,
            choose=self.blueprint.kernels.choose,
        )

    def kv_identity(self, plan: MemoryPlan, kv_loss: str = "") -> str:
        """What equal blocks agree in. `kv_loss` tells what may have been taken away from them."""
        blueprint = self.blueprint
        layout = blueprint.kernels.kv_layout
        exact = f"{blueprint.dtype_name} model, {plan.capacity.kv_dtype} cache, {layout}"
        return f"{exact}, {kv_loss}" if kv_loss else exact

    def spec(
        self,
        model: ModelConfig,
        plan: MemoryPlan,
        *,
        kv_identity: str,
        load_phases_s: dict[str, float],
        kv_tiers: tuple[TierSpec, ...] = (),
        draft_model: DraftModelSpec | None = None,
        rank_pids: tuple[int, ...] = (),
    ) -> ModelSpec:
        """What everyone else learns of a model that is loaded, all its ranks together."""
        blueprint, decoder, kv_tensors = self.blueprint, self.all_stages, self.kv_tensors
        config, dims = blueprint.config, blueprint.dims
        return ModelSpec(
            name=model.served_model_name[0] if model.served_model_name else blueprint.path.name,
            model_version=self.version,
            architecture=blueprint.architecture,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_model_len=plan.max_model_len,
            eos_token_ids=blueprint.eos_token_ids,
            dtype=blueprint.dtype_name,
            quantization=decoder.precision,
            device=str(blueprint.device),
            num_parameters=blueprint.num_parameters,
            weight_bytes=decoder.weight_bytes * dims.tensor,
            num_blocks=kv_tensors.num_blocks,
            block_size=kv_tensors.block_size,
            kv_cache_bytes=kv_tensors.num_bytes,
            kv_precision=plan.capacity.kv_dtype,
            kv_identity=kv_identity,
            load_phases_s=load_phases_s,
            draft_model=draft_model,
            kv_tiers=kv_tiers,
            device_free_bytes=plan.device.free_bytes,
            tensor_parallel_size=dims.tensor,
            context_parallel_size=model.context_parallel_size,
            pipeline_parallel_size=dims.pipeline,
            rank_pids=rank_pids,
            region=model.region,
        )
