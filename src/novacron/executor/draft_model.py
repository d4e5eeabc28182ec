"""DraftModel: the second model of an executor, which guesses for the first."""

from __future__ import annotations

from pathlib import Path

import torch

from novacron.config.engine import SchedulerConfig
from novacron.executor.decoder_memory import allocate_decoder
from novacron.kernels.linear import Quantization
from novacron.kernels.table import Kernels
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import read_hf_config
from novacron.models.loading import load_weights
from novacron.models.registry import find_family
from novacron.parallel.groups import SINGLE
from novacron.records.output import DraftModelSpec
from novacron.runner.captured_step import capture_step
from novacron.runner.draft_runner import DraftRunner
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, activation_bytes, block_bytes, plain_formats


class DraftModel:
    """Loaded when made, in the precision of the model that it guesses for, weights included, with
    the same kernels and threads. Raises ModelLoadError.

    `spec` is there once `make_runner` has been called.
    """

    spec: DraftModelSpec

    def __init__(
        self,
        folder: Path,
        kernels: Kernels,
        quantization: Quantization | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        hf_config = read_hf_config(folder)
        self._name, self._dtype, self._device = folder.name, dtype, device
        self._architecture, family = find_family(hf_config)
        self._config = family.read_config(hf_config)
        self._kv_formats = plain_formats(self._config, dtype)
        self._decoder = allocate_decoder(folder, self._config, kernels, quantization, dtype, device)
        load_weights(self._decoder, Checkpoint(folder), family, lambda fraction: None)

    def block_bytes(self, block_size: int) -> int:
        """What it needs beside each KV block of the model."""
        return block_bytes(self._config, SINGLE, block_size, self._kv_formats)

    def activation_bytes(self, scheduler: SchedulerConfig) -> int:
        return activation_bytes(self._config, SINGLE, scheduler, self._dtype)

    def make_runner(
        self,
        beside: KVTensors,
        scheduler: SchedulerConfig,
        *,
        max_model_len: int,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
    ) -> DraftRunner:
        """Its runner, with KV for the same blocks as `beside`; arguments are the model's facts."""
        context_length = min(max_model_len, self._config.longest_context)
        self._decoder.set_context(context_length)
        kv_tensors = KVTensors(
            self._config,
            SINGLE,
            num_blocks=beside.num_blocks,
            block_size=beside.block_size,
            formats=self._kv_formats,
            device=self._device,
        )
        self.spec = DraftModelSpec(
            name=self._name,
            architecture=self._architecture,
            num_parameters=self._decoder.num_parameters,
            weight_bytes=self._decoder.weight_bytes,
            kv_cache_bytes=kv_tensors.num_bytes,
            context_length=context_length,
        )
        batch = InputBatch(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=scheduler.max_num_batched_tokens,
            max_model_len=max_model_len,
            block_size=beside.block_size,
            device=self._device,
        )
        return DraftRunner(
            capture_step(self._decoder, kv_tensors.layers, batch),
            kv_tensors,
            batch,
            own_vocab_size=self._config.vocab_size,
            vocab_size=vocab_size,
            eos_token_ids=eos_token_ids,
            choose=self._decoder.kernels.choose,
        )
