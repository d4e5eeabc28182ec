"""InlineExecutor: the one rank of a replica, in the process of its engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig
from novacron.errors import ConfigError
from novacron.executor.decoder_memory import allocate_decoder
from novacron.executor.draft_model import DraftModel
from novacron.executor.packed_weights import load_or_map_weights, packed_cache
from novacron.executor.placement import (
    choose_device,
    choose_dtype,
    choose_num_threads,
    choose_quantization,
    keep_freed_memory,
)
from novacron.executor.warm_up import warm_up
from novacron.kernels.choice import choose_kernels
from novacron.kernels.kv_format import choose_kv_formats, describe_kv_formats
from novacron.kernels.linear import Quantization
from novacron.models.checkpoint import Checkpoint
from novacron.models.decoder import Decoder
from novacron.models.decoder_config import DecoderConfig, DynamicScaling, LongRopeScaling
from novacron.models.hf_config import read_eos_token_ids, read_hf_config
from novacron.models.model_version import model_version
from novacron.models.registry import find_family
from novacron.parallel.groups import SINGLE
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import capture_step
from novacron.runner.draft_runner import DraftRunner
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import (
    KVTensors,
    activation_bytes,
    block_bytes,
    name_of,
    num_blocks_to_allocate,
    spare_memory_bytes,
)
from novacron.runner.model_runner import ModelRunner


class InlineExecutor:
    """Loads the model in `model_path` when made, and computes steps. Implements Executor.

    With `draft_path`, a model that makes guesses for it. Its vocabulary must be the same.

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
    ) -> None:
        phases = _Phases(progress)
        with phases.timed("config"):
            device = choose_device(model)
            num_threads = choose_num_threads(model)
            if device.type == "cpu":
                torch.set_num_threads(num_threads)
                keep_freed_memory()
            hf_config = read_hf_config(model_path)
            architecture, family = find_family(hf_config)
            config = family.read_config(hf_config)
            checkpoint = Checkpoint(model_path)
            dtype = choose_dtype(model, hf_config.dtype or checkpoint.dtype, device)
            quantization = choose_quantization(model)
            kernels = choose_kernels(model.kernels, device, dtype, num_threads)
        with phases.timed("weights"), ThreadPoolExecutor(1) as background:
            digest = background.submit(model_version, checkpoint)
            decoder = allocate_decoder(model_path, config, kernels, quantization, dtype, device)
            load_or_map_weights(
                decoder,
                checkpoint,
                family,
                lambda fraction: progress("weights", fraction),
                cache=packed_cache(model),
                version=digest.result,
            )
            version = digest.result()
        draft_model: DraftModel | None = None
        if draft_path is not None:
            with phases.timed("draft_weights"):
                draft_model = DraftModel(draft_path, kernels, quantization, dtype, device)
        if kernels.has_threads:
            torch.set_num_threads(1)  # two pools would wait for each other's cores
        with phases.timed("kv_cache"):
            max_model_len, kv_tensors = _allocate_cache(
                decoder, model, cache, scheduler, dtype, draft_model
            )
            decoder.set_context(max_model_len)
        eos_token_ids = read_eos_token_ids(model_path)
        batch = InputBatch(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=scheduler.max_num_batched_tokens,
            max_model_len=max_model_len,
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
        self._draft_runner: DraftRunner | None = None
        if draft_model is not None:
            self._draft_runner = draft_model.make_runner(
                kv_tensors,
                scheduler,
                max_model_len=max_model_len,
                vocab_size=config.vocab_size,
                eos_token_ids=eos_token_ids,
            )
        with phases.timed("warm_up"):
            warm_up(
                self,
                max_model_len=max_model_len,
                block_size=cache.block_size,
                is_drafting=draft_model is not None,
            )
        self._spec = ModelSpec(
            name=model.served_model_name[0] if model.served_model_name else model_path.name,
            model_version=_version(version, quantization, config, max_model_len),
            architecture=architecture,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_model_len=max_model_len,
            eos_token_ids=eos_token_ids,
            dtype=str(dtype).removeprefix("torch."),
            quantization="none" if quantization is None else str(quantization),
            device=str(device),
            num_parameters=decoder.num_parameters,
            weight_bytes=decoder.weight_bytes,
            num_blocks=kv_tensors.num_blocks,
            block_size=kv_tensors.block_size,
            kv_cache_bytes=kv_tensors.num_bytes,
            kv_precision=describe_kv_formats(kv_tensors.formats),
            kv_identity=f"{name_of(dtype)} model, {describe_kv_formats(kv_tensors.formats)} cache, "
            f"{kernels.kv_layout}",
            load_phases_s=phases.times_s,
            draft_model=draft_model.spec if draft_model else None,
        )

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        assert self._draft_runner is not None, "no draft model was loaded"
        return self._draft_runner.draft(scheduler_output)

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        result = self._runner.execute(scheduler_output)
        if self._draft_runner is not None:
            self._draft_runner.follow(scheduler_output, result)
        return result

    def shutdown(self) -> None:
        """Nothing to end: the tensors go with this object."""


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


def _version(
    digest: str, quantization: Quantization | None, config: DecoderConfig, max_model_len: int
) -> str:
    """Of the weights as they compute: rounded ones make other keys and values. Where rope depends
    on the context that is served, so do keys."""
    version = digest
    if quantization is not None:
        version += f"-int{quantization.bits}g{quantization.group_size}"
    depends = any(
        isinstance(layer.rope.scaling, DynamicScaling | LongRopeScaling) for layer in config.layers
    )
    return f"{version}-{max_model_len}" if depends else version


def _allocate_cache(
    decoder: Decoder,
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    dtype: torch.dtype,
    draft_model: DraftModel | None,
) -> tuple[int, KVTensors]:
    """The longest context to serve, and a KV cache that holds at least one request of it. Leaves
    room for as many blocks of the draft model."""
    config, device = decoder.config, decoder.norm.weight.device
    wanted = model.max_model_len or config.context_length
    if wanted > config.longest_context:
        raise ConfigError(
            f"max_model_len is {wanted}, but the model reaches {config.longest_context} tokens. "
            "Ask for fewer."
        )
    formats = choose_kv_formats(cache, len(config.layers), name_of(dtype))
    per_block = block_bytes(config, SINGLE, cache.block_size, formats)
    reserved = activation_bytes(config, SINGLE, scheduler, dtype)
    if draft_model is not None:
        per_block += draft_model.block_bytes(cache.block_size)
        reserved += draft_model.activation_bytes(scheduler)
    num_blocks = num_blocks_to_allocate(
        cache,
        scheduler,
        bytes_per_block=per_block,
        max_model_len=wanted,
        spare_bytes=spare_memory_bytes(cache, device, activation_bytes=reserved),
    )
    fitting = num_blocks * cache.block_size
    if fitting < wanted and model.max_model_len is not None:
        raise ConfigError(
            f"max_model_len is {wanted}, but the KV cache has room for {fitting} tokens only. "
            "Ask for fewer, or raise kv_cache_memory or the memory utilization."
        )
    kv_tensors = KVTensors(
        config,
        SINGLE,
        num_blocks=num_blocks,
        block_size=cache.block_size,
        formats=formats,
        device=device,
    )
    return min(wanted, fitting), kv_tensors
