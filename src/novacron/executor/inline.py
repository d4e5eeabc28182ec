"""InlineExecutor: the one rank of a replica, in the process of its engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from novacron.config.engine import (
    CacheConfig,
    ModelConfig,
    SchedulerConfig,
    SharedDevice,
    SpeculativeConfig,
)
from novacron.config.remote_tiers import require_extras
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.draft_model import DraftModel
from novacron.executor.mapped_reference import map_reference
from novacron.executor.memory_plan import MemoryPlan, plan_memory
from novacron.executor.neighbours import before_all, draw_neighbours
from novacron.executor.packed_weights import load_or_map_weights, packed_cache
from novacron.executor.placement import choose_num_threads, keep_freed_memory
from novacron.executor.planted_error import wrong_scales
from novacron.executor.quality_watch import QualityWatch
from novacron.executor.tiers import OpenTiers, open_tiers
from novacron.executor.warm_up import warm_up
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.decoder import Decoder
from novacron.models.decoder_config import DynamicScaling, LongRopeScaling
from novacron.models.model_version import model_version
from novacron.parallel.groups import SINGLE
from novacron.quality.watch import Turns
from novacron.records.block_moves import BlockNews, BlockOrders
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import capture_step
from novacron.runner.draft_runner import DraftRunner
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.model_runner import ModelRunner

_NO_SPECULATION = SpeculativeConfig()
_STORE_AT_END_S = 2.0
_ALONE = SharedDevice()

logger = logging.getLogger(__name__)


class InlineExecutor:
    """Loads the model in `model_path` when made, and computes steps. Implements Executor.

    With `draft_path`, a model that makes guesses for it. Its vocabulary must be the same. `shared`
    tells which other variants there are going to be on the device.

    Raises ModelLoadError and ConfigError. `progress` gets the phase of loading and the fraction of
    that phase that is done.
    """

    def __init__(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        model_path: Path,
        draft_path: Path | None = None,
        progress: Callable[[str, float], None],
        speculative: SpeculativeConfig = _NO_SPECULATION,
        shared: SharedDevice = _ALONE,
    ) -> None:
        phases = _Phases(progress)
        with phases.timed("config"):
            require_extras(cache)
            num_threads = choose_num_threads(model)
            blueprint = draw_blueprint(model, model_path, num_threads)
            draft = None if draft_path is None else blueprint.of_draft(draft_path)
            device, config, kernels = blueprint.device, blueprint.config, blueprint.kernels
            if device.type == "cpu":
                torch.set_num_threads(num_threads)
                keep_freed_memory()
            shape, measured = blueprint.shape(), measure_device_memory(device, cache)
            plan = plan_memory(
                shape,
                before_all(measured, shared.free_bytes, shape),
                cache,
                scheduler,
                speculative,
                max_model_len=model.max_model_len,
                draft=None if draft is None else draft.shape(),
                neighbours=draw_neighbours(blueprint, draft, shared, model, scheduler, speculative),
            )
            logger.info("memory: %s", plan.summary)
        with phases.timed("weights"):
            decoder, digest = _load_model(blueprint, model, progress)
        draft_model: DraftModel | None = None
        if draft is not None:
            with phases.timed("draft_weights"):
                draft_model = DraftModel(draft)
        if kernels.has_threads:
            torch.set_num_threads(1)  # two pools would wait for each other's cores
        with phases.timed("kv_cache"):
            kv_tensors = _allocate_cache(blueprint, plan, cache)
            decoder.set_context(plan.max_model_len)
        self._model, self._cache = model, cache
        self._blueprint, self._decoder = blueprint, decoder
        version = _version(digest, decoder, plan.max_model_len)
        kv_identity = (
            f"{blueprint.dtype_name} model, {plan.capacity.kv_dtype} cache, {kernels.kv_layout}"
        )
        eos_token_ids = blueprint.eos_token_ids
        batch = InputBatch(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=scheduler.max_num_batched_tokens,
            max_model_len=plan.max_model_len,
            block_size=cache.block_size,
            device=device,
        )
        self._runner = ModelRunner(
            capture_step(decoder, kv_tensors.layers, batch),
            kv_tensors,
            batch,
            eos_token_ids=eos_token_ids,
            choose=kernels.choose,
        )
        self._tiers: OpenTiers | None = None  # a first step knows none
        self._draft_runner: DraftRunner | None = None
        if draft_model is not None:
            self._draft_runner = draft_model.make_runner(
                kv_tensors,
                scheduler,
                max_model_len=plan.max_model_len,
                vocab_size=config.vocab_size,
                eos_token_ids=eos_token_ids,
            )
        with phases.timed("warm_up"):
            warm_up(
                self,
                max_model_len=plan.max_model_len,
                block_size=cache.block_size,
                is_drafting=draft_model is not None,
            )
        self._tiers = open_tiers(
            model,
            cache,
            kv_tensors,
            model_version=version,
            kv_identity=kv_identity,
        )
        self._spec = ModelSpec(
            name=model.served_model_name[0] if model.served_model_name else model_path.name,
            model_version=version,
            architecture=blueprint.architecture,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_model_len=plan.max_model_len,
            eos_token_ids=eos_token_ids,
            dtype=blueprint.dtype_name,
            quantization=decoder.precision,
            device=str(device),
            num_parameters=decoder.num_parameters,
            weight_bytes=decoder.weight_bytes,
            num_blocks=kv_tensors.num_blocks,
            block_size=kv_tensors.block_size,
            kv_cache_bytes=kv_tensors.num_bytes,
            kv_precision=plan.capacity.kv_dtype,
            kv_identity=kv_identity,
            load_phases_s=phases.times_s,
            draft_model=draft_model.spec if draft_model else None,
            kv_tiers=() if self._tiers is None else self._tiers.specs,
            device_free_bytes=plan.device.free_bytes,
        )

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        assert self._draft_runner is not None, "no draft model was loaded"
        return self._draft_runner.draft(scheduler_output)

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        if self._tiers is not None:
            self._tiers.mover.begin_step(scheduler_output)
        result = self._runner.execute(scheduler_output)
        if self._draft_runner is not None:
            self._draft_runner.follow(scheduler_output, result)
        if self._tiers is not None:
            self._tiers.mover.end_step()
        return result

    def watch_quality(self, floor: float, turns: Turns | None = None) -> QualityWatch:
        """A watch over this model, its reference mapped from disk. Raises ConfigError and
        ModelLoadError."""
        return QualityWatch(
            self._blueprint,
            self._decoder,
            map_reference(self._blueprint, self._model),
            self._cache,
            max_model_len=self._spec.max_model_len,
            floor=floor,
            turns=turns,
        )

    @property
    def decoder(self) -> Decoder:
        return self._decoder

    def with_wrong_scales(self, pattern: str, factor: float) -> AbstractContextManager[int]:
        """See planted_error: for measuring what the watch notices. Raises ConfigError."""
        return wrong_scales(self._decoder, pattern, factor)

    def move_blocks(self, orders: BlockOrders) -> None:
        assert self._tiers is not None, "there are no KV tiers"
        self._tiers.mover.order(orders)

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None if self._tiers is None else self._tiers.mover.news(wait_s)

    def shutdown(self) -> None:
        """The tensors go with this object; what tiers still have to store gets a moment."""
        if self._tiers is not None:
            self._tiers.mover.close(_STORE_AT_END_S)
            self._tiers = None


class _Phases:
    """Names, reports and times the parts of start-up."""

    def __init__(self, progress: Callable[[str, float], None]) -> None:
        self._progress = progress
        self.times_s: dict[str, float] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        self._progress(phase, 0.0)
        start_s = time.perf_counter()
        yield
        self.times_s[phase] = time.perf_counter() - start_s
        self._progress(phase, 1.0)


def _load_model(
    blueprint: Blueprint, model: ModelConfig, progress: Callable[[str, float], None]
) -> tuple[Decoder, str]:
    """The decoder with its weights, and the digest of its checkpoint."""
    with ThreadPoolExecutor(1) as background:
        digest = background.submit(model_version, blueprint.checkpoint)
        decoder = blueprint.build(blueprint.device)
        load_or_map_weights(
            decoder,
            blueprint.checkpoint,
            blueprint.family,
            lambda fraction: progress("weights", fraction),
            cache=packed_cache(model),
            version=digest.result,
        )
        return decoder, digest.result()


def _allocate_cache(blueprint: Blueprint, plan: MemoryPlan, cache: CacheConfig) -> KVTensors:
    return KVTensors(
        blueprint.config,
        SINGLE,
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        formats=choose_kv_formats(cache, len(blueprint.config.layers), blueprint.kv_precision),
        device=blueprint.device,
    )


def _version(digest: str, decoder: Decoder, max_model_len: int) -> str:
    """Of the weights as they compute: rounded ones make other keys and values. Where rope depends
    on the context that is served, so do keys."""
    version = "-".join(filter(None, (digest, decoder.precision_identity)))
    depends = any(
        isinstance(layer.rope.scaling, DynamicScaling | LongRopeScaling)
        for layer in decoder.config.layers
    )
    return f"{version}-{max_model_len}" if depends else version
