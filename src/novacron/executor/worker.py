"""What every rank does to be ready, in the order in which it is done: for all executors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.packed_weights import load_or_map_weights, packed_cache
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.decoder import Decoder
from novacron.models.decoder_config import DynamicScaling, LongRopeScaling
from novacron.models.model_version import model_version, weights_identity
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.step_arrays import StepArrays

Progress = Callable[[str, float], None]


class Phases:
    """Names, reports and times the parts of start-up."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.times_s: dict[str, float] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        self._progress(phase, 0.0)
        start_s = time.perf_counter()
        yield
        self.times_s[phase] = time.perf_counter() - start_s
        self._progress(phase, 1.0)


def load_model(
    blueprint: Blueprint, model: ModelConfig, progress: Callable[[float], None]
) -> tuple[Decoder, str]:
    """The rank's decoder with its weights, and the digest of its checkpoint. Raises
    ModelLoadError."""
    with ThreadPoolExecutor(1) as background:
        digest = background.submit(model_version, blueprint.checkpoint)
        decoder = blueprint.build(blueprint.device)
        load_or_map_weights(
            decoder,
            blueprint.checkpoint,
            blueprint.family,
            progress,
            cache=packed_cache(model),
            version=digest.result,
            group=blueprint.group,
            elsewhere=blueprint.slots_elsewhere(decoder),
        )
        return decoder, digest.result()


def allocate_cache(
    blueprint: Blueprint, num_blocks: int, cache: CacheConfig, memory: Tensor | None = None
) -> KVTensors:
    """In `memory` that ranks share, if they do."""
    formats = choose_kv_formats(cache, len(blueprint.config.layers), blueprint.kv_precision)
    return KVTensors(
        blueprint.config,
        blueprint.group,
        num_blocks=num_blocks,
        block_size=cache.block_size,
        formats=formats,
        device=blueprint.device,
        memory=memory,
    )


def make_batch(
    blueprint: Blueprint,
    scheduler: SchedulerConfig,
    *,
    block_size: int,
    max_model_len: int,
    arrays: StepArrays | None = None,
) -> InputBatch:
    return InputBatch(
        max_num_seqs=scheduler.max_num_seqs,
        max_num_tokens=scheduler.max_num_batched_tokens,
        max_model_len=max_model_len,
        block_size=block_size,
        device=blueprint.device,
        arrays=arrays,
    )


def version_of(digest: str, decoder: Decoder, max_model_len: int) -> str:
    """Of the weights as they compute: rounded ones make other keys and values. Where rope depends
    on the context that is served, so do keys."""
    version = weights_identity(digest, decoder.precision_identity)
    depends = any(
        isinstance(layer.rope.scaling, DynamicScaling | LongRopeScaling)
        for layer in decoder.config.layers
    )
    return f"{version}-{max_model_len}" if depends else version
