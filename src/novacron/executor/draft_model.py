"""DraftModel: the second model of an executor, which guesses for the first."""

from __future__ import annotations

from novacron.config.cache import CacheConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.loading import load_weights
from novacron.parallel.groups import SINGLE
from novacron.records.output import DraftModelSpec
from novacron.runner.captured_step import capture_step
from novacron.runner.draft_runner import DraftRunner
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors


class DraftModel:
    """Loaded when made, after Blueprint.of_draft. Raises ModelLoadError.

    `spec` is there once `make_runner` has been called.
    """

    spec: DraftModelSpec

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint, self._config = blueprint, blueprint.config
        self._decoder = blueprint.build(blueprint.device)
        load_weights(self._decoder, blueprint.checkpoint, blueprint.family, lambda fraction: None)

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
            formats=choose_kv_formats(
                CacheConfig(), len(self._config.layers), self._blueprint.kv_precision
            ),
            device=self._blueprint.device,
        )
        self.spec = DraftModelSpec(
            name=self._blueprint.path.name,
            architecture=self._blueprint.architecture,
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
            device=self._blueprint.device,
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
