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
from novacron.kernels.recorded import NotRecordable, Record
from novacron.models.decoder import Decoder
from novacron.runner.input_batch import InputBatch, StepInput

logger = logging.getLogger(__name__)


class DecoderStep(Protocol):
    """What the model runner asks of the decoder. Results hold until the next call."""

    def begin(self, inputs: StepInput) -> None:
        """Have the step under way, as far as somebody else can compute it meanwhile. Several steps
        may be, as many as whoever computes them has said; `hidden` is asked for in their order."""
        ...

    def hidden(self, inputs: StepInput) -> Tensor:
        """Hidden states after the last norm, [T, D], of a step that has begun. Writes its keys and
        values."""
        ...

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        """Scores of all tokens after the named ones of the step, [R, V] in float32. `hidden_TD` is
        what `hidden` has just returned."""
        ...


class ComputedHere:
    """The part of a DecoderStep that has nobody else to compute anything."""

    def begin(self, inputs: StepInput) -> None:
        pass


class EagerStep(ComputedHere):
    def __init__(self, decoder: Decoder, cache: Sequence[KVLayer]) -> None:
        self._decoder = decoder
        self._layers = EagerLayers(decoder, cache)

    def hidden(self, inputs: StepInput) -> Tensor:
        return self._layers(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        if len(places) < hidden_TD.shape[0]:
            hidden_TD = hidden_TD[_index(places, hidden_TD.device)]
        return self._decoder.logits(hidden_TD)


class CapturedStep(ComputedHere):
    """Raises NotRecordable. `batch` makes the inputs of all steps, where they were captured."""

    def __init__(self, decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch) -> None:
        self._hidden = CapturedLayers(decoder, cache, batch)
        self._logits = CapturedLogits(decoder, self._hidden.result_TD, batch.max_num_tokens)

    def hidden(self, inputs: StepInput) -> Tensor:
        return self._hidden(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._logits(places)


class CapturedLayers:
    """A stage's layers. `given_TD` is what those of a stage other than the first work on, in place;
    the first one begins with the tokens. `record` is the kernels' own, if no other is given. Raises
    NotRecordable."""

    def __init__(
        self,
        decoder: Decoder,
        cache: Sequence[KVLayer],
        batch: InputBatch,
        given_TD: Tensor | None = None,
        record: Record | None = None,
    ) -> None:
        largest = batch.largest_input()

        def compute() -> Tensor:
            x_TD = decoder.embed(largest.token_ids_T) if given_TD is None else given_TD
            return decoder.through_layers(x_TD, largest.positions_T, largest.attention, cache)

        self._kept = (decoder, decoder.angles, cache, largest, given_TD)  # the recording uses them
        self._program = (record or decoder.kernels.record)(
            compute,
            max_rows=batch.max_num_tokens,
            max_requests=largest.attention.rows_R3.shape[0],
        )
        self.result_TD = self._program.result

    def __call__(self, inputs: StepInput) -> Tensor:
        self._program.run(inputs.num_tokens, inputs.num_requests)
        return self.result_TD[: inputs.num_tokens]


class EagerLayers:
    """The same, operation by operation."""

    def __init__(
        self, decoder: Decoder, cache: Sequence[KVLayer], given_TD: Tensor | None = None
    ) -> None:
        self._decoder, self._cache, self._given_TD = decoder, cache, given_TD

    def __call__(self, inputs: StepInput) -> Tensor:
        given_TD = self._given_TD
        if given_TD is None:
            x_TD = self._decoder.embed(inputs.token_ids_T)
        else:
            x_TD = given_TD[: inputs.num_tokens]
        return self._decoder.through_layers(x_TD, inputs.positions_T, inputs.attention, self._cache)


class CapturedLogits:
    """Scores after rows of `hidden_ND`, of at most `max_rows` at once. Raises NotRecordable."""

    def __init__(self, decoder: Decoder, hidden_ND: Tensor, max_rows: int) -> None:
        places_R = torch.zeros(max_rows, dtype=torch.int64)
        chosen = decoder.kernels.lookup(hidden_ND)
        self._kept = (decoder, hidden_ND, places_R)
        self._program = decoder.kernels.record(
            lambda: decoder.logits(chosen.rows(places_R)), max_rows=max_rows
        )
        self._places = places_R.numpy()

    def __call__(self, places: Sequence[int]) -> Tensor:
        self._places[: len(places)] = places
        self._program.run(len(places))
        return self._program.result[: len(places)]


def capture_step(decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch) -> DecoderStep:
    """Captured if the kernels and the decoder allow it."""
    try:
        with torch.inference_mode():
            return CapturedStep(decoder, cache, batch)
    except NotRecordable as reason:
        say_why_not(reason)
        return EagerStep(decoder, cache)


def say_why_not(reason: NotRecordable) -> None:
    logger.info("The operations of each step are called one by one, because %s.", reason)


def _index(places: Sequence[int], device: torch.device) -> Tensor:
    index = torch.tensor(places)
    if device.type == "cuda":
        index = index.pin_memory().to(device, non_blocking=True)
    return index
