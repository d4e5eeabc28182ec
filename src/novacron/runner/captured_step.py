"""The decoder's part of a step: called operation by operation, or captured once and replayed.

CapturedStep has the kernels record the decoder on the tensors of the largest step; a step is then
two calls, whatever the model. EagerStep computes the same with the decoder as it is written, for
kernels that do not record and decoders that cannot be recorded. Both give the same bits.

Shapes: T tokens of the step, R rows whose logits are wanted, D hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from novacron.kernels.metadata import KVLayer
from novacron.kernels.recorded import NotRecordable
from novacron.models.decoder import Decoder
from novacron.runner.input_batch import InputBatch, StepInput

logger = logging.getLogger(__name__)


class DecoderStep(Protocol):
    """What the model runner asks of the decoder. Results hold until the next call."""

    def hidden(self, inputs: StepInput) -> Tensor:
        """Hidden states after the last norm, [T, D]. Writes the step's keys and values."""
        ...

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        """Scores of all tokens after the named ones of the step, [R, V] in float32. `hidden_TD` is
        what `hidden` has just returned."""
        ...


class EagerStep:
    def __init__(self, decoder: Decoder, cache: Sequence[KVLayer]) -> None:
        self._decoder = decoder
        self._cache = cache

    def hidden(self, inputs: StepInput) -> Tensor:
        hidden_TD: Tensor = self._decoder(
            inputs.token_ids_T, inputs.positions_T, inputs.attention, self._cache
        )
        return hidden_TD

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        if len(places) < hidden_TD.shape[0]:
            hidden_TD = hidden_TD[_index(places, hidden_TD.device)]
        return self._decoder.logits(hidden_TD)


class CapturedStep:
    """Raises NotRecordable. `batch` makes the inputs of all steps, where they were captured."""

    def __init__(self, decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch) -> None:
        largest = batch.largest_input()
        max_tokens, max_requests = largest.token_ids_T.shape[0], largest.attention.rows_R3.shape[0]
        self._kept = (decoder, decoder.angles, cache, largest)  # what the recordings point to
        self._hidden = decoder.kernels.record(
            lambda: decoder(largest.token_ids_T, largest.positions_T, largest.attention, cache),
            max_rows=max_tokens,
            max_requests=max_requests,
        )
        self._places_R = torch.zeros(max_tokens, dtype=torch.int64)
        chosen = decoder.kernels.lookup(self._hidden.result)
        self._logits = decoder.kernels.record(
            lambda: decoder.logits(chosen.rows(self._places_R)), max_rows=max_tokens
        )
        self._places = self._places_R.numpy()

    def hidden(self, inputs: StepInput) -> Tensor:
        self._hidden.run(inputs.num_tokens, inputs.num_requests)
        return self._hidden.result[: inputs.num_tokens]

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        self._places[: len(places)] = places
        self._logits.run(len(places))
        return self._logits.result[: len(places)]


def capture_step(decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch) -> DecoderStep:
    """Captured if the kernels and the decoder allow it."""
    try:
        with torch.inference_mode():
            return CapturedStep(decoder, cache, batch)
    except NotRecordable as reason:
        logger.info("The operations of each step are called one by one, because %s.", reason)
        return EagerStep(decoder, cache)


def _index(places: Sequence[int], device: torch.device) -> Tensor:
    index = torch.tensor(places)
    if device.type == "cuda":
        index = index.pin_memory().to(device, non_blocking=True)
    return index
