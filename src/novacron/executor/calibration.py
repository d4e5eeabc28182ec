"""What the inputs of a model's matrices are like: their second moments over some texts.

Shapes: T tokens, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psutil
import torch
from torch import Tensor

from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.executor.memory_plan import size_text
from novacron.kernels.linear import Linear
from novacron.models.decoder import Decoder
from novacron.models.layers.matrix import Matrix
from novacron.models.loading import load_weights
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.groups import SINGLE
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats

TokenIds = tuple[int, ...]

_BLOCK_SIZE = 16
_MOMENT_BYTES = 4
_USABLE_SHARE = 0.5  # of the free memory, beside the model


@torch.inference_mode()
def second_moments(
    blueprint: Blueprint,
    texts: Sequence[TokenIds],
    names: frozenset[str],
    progress: Callable[[float], None] = lambda fraction: None,
) -> Mapping[str, Tensor]:
    """The mean of x x^T over the inputs x that the matrices of these names get, [I, I], when the
    model that is not rounded reads the texts. Matrices with the same input share a tensor.

    Raises ConfigError if there is no text, and if the memory does not suffice.
    """
    if not any(texts):
        raise ConfigError("There is no text to calibrate with: the file of --calibration is empty.")
    decoder = blueprint.with_precision(WeightPrecision()).build(blueprint.device)
    wanted = [matrix for matrix in decoder.matrices if names.intersection(matrix.names)]
    _check_memory(decoder, wanted)
    load_weights(decoder, blueprint.checkpoint, blueprint.family, lambda fraction: None)
    watched = {matrix: _Watched(matrix.product, matrix.shape[1]) for matrix in wanted}
    for matrix, product in watched.items():
        matrix.product = product
    decoder.set_context(max(map(len, texts)))
    for number, token_ids in enumerate(texts, start=1):
        if token_ids:
            _read(decoder, token_ids)
        progress(number / len(texts))
    return {name: product.mean() for matrix, product in watched.items() for name in matrix.names}


class _Watched:
    """A product that adds up its inputs' second moments. Implements Linear."""

    def __init__(self, product: Linear, num_inputs: int) -> None:
        self._product = product
        self._sum_II = torch.zeros(num_inputs, num_inputs)
        self._count = 0

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        x_TI = x.flatten(0, -2).float().cpu()
        self._sum_II.addmm_(x_TI.T, x_TI)
        self._count += len(x_TI)
        return self._product(x, bias, add_to=add_to, out_dtype=out_dtype)

    def rows(self, indices: Tensor) -> Tensor:
        return self._product.rows(indices)

    def mean(self) -> Tensor:
        return self._sum_II / max(1, self._count)


def _check_memory(decoder: Decoder, matrices: Sequence[Matrix]) -> None:
    needed = sum(_MOMENT_BYTES * matrix.shape[1] ** 2 for matrix in matrices)
    free = int((psutil.virtual_memory().available - decoder.weight_bytes) * _USABLE_SHARE)
    if needed > free:
        raise ConfigError(
            f"The method gptq needs {size_text(needed)} for what it learns of the inputs of "
            f"{len(matrices)} matrices, and {size_text(max(0, free))} are usable for it. Free some "
            "memory, leave matrices out with --quantization-layers, or take --method rtn."
        )


def _read(decoder: Decoder, token_ids: TokenIds) -> None:
    device, count = decoder.device, len(token_ids)
    num_blocks = -(-count // _BLOCK_SIZE)
    kv_tensors = KVTensors(
        decoder.config,
        SINGLE,
        num_blocks=num_blocks + 1,
        block_size=_BLOCK_SIZE,
        formats=plain_formats(decoder.config, decoder.dtype),
        device=device,
    )
    batch = InputBatch(
        max_num_seqs=1,
        max_num_tokens=count,
        max_model_len=count,
        block_size=_BLOCK_SIZE,
        device=device,
    )
    request = NewRequest("calibration", token_ids, count, SamplingParams(seed=0))
    part = ScheduledTokens("calibration", 0, count, tuple(range(1, num_blocks + 1)))
    step = SchedulerOutput(0, (request,), (part,), (), ())
    batch.update(step)
    inputs = batch.prepare(step)
    decoder(inputs.token_ids_T, inputs.positions_T, inputs.attention, kv_tensors.layers)
