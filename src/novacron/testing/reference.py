"""What `transformers` computes for a checkpoint, and what NovaCron computes, side by side.

For tests: tests/reference runs these on CPU, tests/gpu on CUDA. Needs the `dev` extra.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.executor import BlocksLost, Executor
from novacron.executor.inline import InlineExecutor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.pipeline import PipelineExecutor
from novacron.kernels.choice import choose_kernels
from novacron.kernels.linear import Quantization
from novacron.kernels.table import Kernels
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.decoder_config import DecoderConfig
from novacron.models.loading import load_weights
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup
from novacron.records.output import EngineOutput
from novacron.records.request import Request, SamplingParams
from novacron.records.step import (
    ModelRunnerOutput,
    NewRequest,
    PositionLogprobs,
    ScheduledTokens,
    SchedulerOutput,
)
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats, shape_of_blocks
from novacron.scheduler.scheduler import Scheduler

_BLOCK_SIZE = 8


class Judge:
    """A checkpoint as transformers runs it, in float32 and without fused attention."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        )

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """[tokens, vocabulary]"""
        logits: Tensor = self._model(torch.tensor([token_ids])).logits[0]
        return logits

    @torch.no_grad()
    def greedy(self, token_ids: Sequence[int], num_tokens: int) -> list[int]:
        """The tokens that follow, the end-of-sequence token not ending them."""
        prompt = torch.tensor([token_ids])
        all_ids = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        new_ids: list[int] = all_ids[0, len(token_ids) :].tolist()
        return new_ids


KernelChoice = Literal["auto", "native", "torch"]


def load_decoder(
    folder: Path, device: torch.device, *, dtype: torch.dtype, kernels: KernelChoice = "auto"
) -> Decoder:
    """The decoder of one rank, filled from a checkpoint; its context is not set."""
    return load_decoder_with(choose_kernels(kernels, device, dtype, 1), folder, dtype, device)


def load_decoder_with(
    kernels: Kernels,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    *,
    quantization: Quantization | None = None,
    precision: WeightPrecision | None = None,
) -> Decoder:
    """`precision` says more of how weights are rounded than `quantization`, and instead of it."""
    files = read_model_files(folder)
    _, family = find_family(files.config)
    config = family.read_config(files.config)
    decoder = build_decoder(
        config,
        SINGLE,
        LocalCommunicator(),
        kernels,
        precision=precision or WeightPrecision.uniform(quantization),
        dtype=dtype,
        device=device,
    )
    load_weights(decoder, files.open_weights(), family, lambda fraction: None)
    return decoder


@torch.inference_mode()
def logits_in_chunks(
    decoder: Decoder,
    token_ids: Sequence[int],
    chunks: Sequence[int],
    *,
    max_model_len: int,
    group: ParallelGroup = SINGLE,
    kv_blocks: Tensor | None = None,
) -> Tensor:
    """Logits at every position of a prompt that is computed in `chunks` of so many tokens. The KV
    cache is `kv_blocks`, of `shape_of_kv_blocks`, where it is given."""
    return logits_of_stages(
        (decoder,),
        token_ids,
        chunks,
        max_model_len=max_model_len,
        group=group,
        kv_blocks=kv_blocks,
    )


@torch.inference_mode()
def logits_of_stages(
    stages: Sequence[Decoder],
    token_ids: Sequence[int],
    chunks: Sequence[int],
    *,
    max_model_len: int,
    group: ParallelGroup = SINGLE,
    kv_blocks: Tensor | None = None,
) -> Tensor:
    """The same, of a decoder that was cut into stages."""
    assert sum(chunks) == len(token_ids)
    first, config = stages[0], stages[0].config
    device = first.device
    block_size = _BLOCK_SIZE
    num_blocks = -(-len(token_ids) // block_size)
    kv_tensors = KVTensors(
        config,
        group,
        num_blocks=num_blocks + 1,
        block_size=block_size,
        formats=plain_formats(config, first.dtype),
        device=device,
        memory=kv_blocks,
    )
    caches = [stage.stage.of(kv_tensors.layers) for stage in stages]
    for stage in stages:
        stage.set_context(max_model_len)
    batch = InputBatch(
        max_num_seqs=1,
        max_num_tokens=len(token_ids),
        max_model_len=len(token_ids),
        block_size=block_size,
        device=device,
    )
    request = NewRequest("r", tuple(token_ids), len(token_ids), SamplingParams(seed=0))
    pieces: list[Tensor] = []
    start = 0
    for size in chunks:
        blocks = () if start else tuple(range(num_blocks, 0, -1))
        part = ScheduledTokens("r", start, size, blocks)
        step = SchedulerOutput(0, () if start else (request,), (part,), (), ())
        batch.update(step)
        inputs = batch.prepare(step)
        x_TD = first.embed(inputs.token_ids_T)
        for stage, cache in zip(stages, caches, strict=True):
            x_TD = stage.through_layers(x_TD, inputs.positions_T, inputs.attention, cache)
        pieces.append(first.logits(x_TD).clone())
        start += size
    return torch.cat(pieces).cpu()


def shape_of_kv_blocks(
    config: DecoderConfig, dtype: torch.dtype, num_tokens: int
) -> tuple[int, int]:
    """Of the cache of a prompt of so many tokens."""
    return shape_of_blocks(
        config,
        plain_formats(config, dtype),
        num_blocks=-(-num_tokens // _BLOCK_SIZE) + 1,
        block_size=_BLOCK_SIZE,
    )


@dataclass(frozen=True)
class Generation:
    token_ids: list[int]
    num_cached_tokens: int
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()


class Engine:
    """Scheduler, KV cache and executor of one checkpoint, without processes or text."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        *,
        max_num_batched_tokens: int = 2048,
        num_blocks: int = 256,
        dtype: str = "float32",
        kernels: KernelChoice = "auto",
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        steps_in_flight: int | None = None,
        executor: Callable[..., Executor] | None = None,
        **model: Any,
    ) -> None:
        scheduler_config = SchedulerConfig(
            max_num_seqs=16, max_num_batched_tokens=max_num_batched_tokens
        )
        make_executor: Callable[..., Executor]
        has_ranks = tensor_parallel_size * model.get("context_parallel_size", 1) > 1
        make_executor = MultiprocessExecutor if has_ranks else InlineExecutor
        if pipeline_parallel_size > 1:
            make_executor = PipelineExecutor
        make_executor = executor or make_executor
        self.executor = make_executor(
            ModelConfig(
                dtype=dtype,  # type: ignore[arg-type]
                device=device.type,  # type: ignore[arg-type]
                num_threads=1,
                kernels=kernels,
                tensor_parallel_size=tensor_parallel_size,
                pipeline_parallel_size=pipeline_parallel_size,
                pipeline_steps_in_flight=steps_in_flight or pipeline_parallel_size,
                **model,
            ),
            CacheConfig(block_size=8, kv_cache_memory=64 * 2**20, kv_ram_size=0, kv_disk_size=0),
            scheduler_config,
            model_path=folder,
            progress=lambda phase, fraction: None,
        )
        spec = self.executor.spec
        kv_cache = KVCacheManager(
            num_blocks=min(num_blocks, spec.num_blocks),
            block_size=spec.block_size,
            model_version=spec.model_version,
            kv_dtype=spec.kv_identity,
            enable_prefix_caching=True,
        )
        self._scheduler = Scheduler(
            scheduler_config,
            kv_cache,
            max_model_len=spec.max_model_len,
            eos_token_ids=frozenset(spec.eos_token_ids),
            max_in_flight=self.executor.max_steps_in_flight,
        )
        self._in_flight: deque[SchedulerOutput] = deque()
        self.most_in_flight = 0

    @property
    def num_preemptions(self) -> int:
        return self._scheduler.stats().num_preemptions

    def greedy(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[Generation]:
        """The tokens that follow each prompt, all prompts running together."""
        sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, seed=0)
        return self.run(prompts, sampling)

    def run(self, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> list[Generation]:
        """What each prompt gets, all of them running together."""
        for index, prompt in enumerate(prompts):
            self._scheduler.add(
                Request(
                    request_id=str(index),
                    prompt_token_ids=tuple(prompt),
                    sampling=sampling,
                    arrival_time_s=float(index),
                )
            )
        found = {str(index): Generation([], 0) for index in range(len(prompts))}
        while self._scheduler.has_work:
            for output in self._step():
                assert output.error is None, output.error
                before = found[output.request_id]
                found[output.request_id] = Generation(
                    [*before.token_ids, *output.new_token_ids],
                    max(before.num_cached_tokens, output.num_cached_tokens),
                    before.logprobs + output.logprobs,
                    before.prompt_logprobs + output.prompt_logprobs,
                )
        return list(found.values())

    def _step(self) -> list[EngineOutput]:
        """The news of the first step in flight, after as many as may be have begun."""
        try:
            return self._compute()
        except BlocksLost:
            self.lose_blocks()
            return []

    def lose_blocks(self) -> None:
        """After BlocksLost."""
        self._in_flight.clear()
        self._scheduler.lose_blocks()

    def _compute(self) -> list[EngineOutput]:
        while len(self._in_flight) < self.executor.max_steps_in_flight:
            decision = self._scheduler.schedule()
            if not decision.scheduled:
                break
            self.executor.submit(decision)
            self._in_flight.append(decision)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        if self._in_flight:
            return self._scheduler.update(self._in_flight.popleft(), self.executor.collect())
        return self._scheduler.update(decision, ModelRunnerOutput(decision.step, ()))
