"""Steps of which several ranks compute some rows each, all of them with the whole model.

In every layer, each stores the keys and values of its rows, all meet, and each attends with its
rows to whatever there is: in KV blocks that they share, or that are made equal in the meeting. A
row's numbers depend on nothing but what it attends to, so they are those of one rank, bit for bit.

Shapes: T tokens of the step, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from novacron.kernels.metadata import KVLayer
from novacron.kernels.ranks import RowLink
from novacron.kernels.recorded import NotRecordable, Record
from novacron.models.decoder import Decoder
from novacron.parallel.groups import ParallelGroup
from novacron.runner.captured_step import (
    CapturedLayers,
    ComputedHere,
    DecoderStep,
    EagerLayers,
    say_why_not,
)
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.led_step import Lead
from novacron.runner.row_shares import Piece, share_rows, take_share
from novacron.runner.stage_step import logits_of
from novacron.runner.step_arrays import StepArrays

_WORTH_SHARING: Final = 64  # tokens for each rank: fewer are read weights for, and little else


Shares = list[list[Piece]]  # of all ranks


class RowMeeting(Protocol):
    """How ranks bring together what each of them computes of a step: all do the same at the same
    places of it. Raises ConnectionError once one of them is lost.

    Long parts are cut between blocks of `unit` tokens. On rank 0, `hidden_TD` has the hidden states
    of all rows once they are gathered.
    """

    unit: int
    hidden_TD: Tensor

    def begin(self, step: StepArrays, shares: Shares) -> None:
        """Before each step."""
        ...

    def meet(self, num_tokens: int) -> None:
        """In each layer, as AttentionMetadata.meet."""
        ...

    def gather(self, x_TD: Tensor, step: StepArrays, shares: Shares) -> None:
        """At the end. `x_TD` are this rank's hidden states."""
        ...


class SharedMemoryMeeting:
    """Implements RowMeeting, of ranks that share KV blocks and `hidden_TD`."""

    unit = 1

    def __init__(self, hidden_TD: Tensor, group: ParallelGroup, link: RowLink) -> None:
        self.hidden_TD, self._rank, self.meet = hidden_TD, group.rank, link.meet

    def begin(self, step: StepArrays, shares: Shares) -> None:
        pass

    def gather(self, x_TD: Tensor, step: StepArrays, shares: Shares) -> None:
        put_rows(x_TD, shares[self._rank], self.hidden_TD)
        self.meet(len(step.token_ids_T))


def put_rows(x_TD: Tensor, pieces: Sequence[Piece], hidden_TD: Tensor) -> None:
    """Bring hidden states of pieces, one after the other, to their places in the step."""
    first = 0
    for piece in pieces:
        place = slice(piece.first_token, piece.first_token + piece.num_tokens)
        hidden_TD[place] = x_TD[first : first + piece.num_tokens]
        first += piece.num_tokens


class RowShare:
    """What one rank of the `group` computes of steps that are shared, which `batch` has room for.
    `record` as in CapturedLayers."""

    def __init__(
        self,
        decoder: Decoder,
        cache: Sequence[KVLayer],
        batch: InputBatch,
        group: ParallelGroup,
        meeting: RowMeeting,
        record: Record | None = None,
    ) -> None:
        self.meeting = meeting
        self._batch, self._group = batch.for_pieces(meet=meeting.meet), group
        self._layers: Callable[[StepInput], Tensor]
        try:
            with torch.inference_mode():
                self._layers = CapturedLayers(decoder, cache, self._batch, record=record)
        except NotRecordable as reason:
            say_why_not(reason)
            self._layers = EagerLayers(decoder, cache)

    def compute(self, step: StepArrays) -> None:
        """Returns when all ranks have computed theirs. Raises ConnectionError."""
        shares = self._shares(step)
        pieces = shares[self._group.rank]
        own = take_share(step, pieces, self._batch.block_size)
        counts = len(own.token_ids_T), len(pieces), step.block_tables_RB.shape[1]
        self.meeting.begin(step, shares)
        x_TD = self._layers(self._batch.copied_input(own, *counts))
        self.meeting.gather(x_TD, step, shares)

    def is_worth(self, step: StepArrays) -> bool:
        """Whether there is enough to do, for all ranks."""
        enough = len(step.token_ids_T) >= _WORTH_SHARING * self._group.size
        return enough and all(self._shares(step))

    def _shares(self, step: StepArrays) -> Shares:
        return share_rows(step.rows_R3, self._group.size, self.meeting.unit)


class OwnRows(ComputedHere):
    """Implements DecoderStep on rank 0, of shared steps."""

    def __init__(self, decoder: Decoder, share: RowShare, max_tokens: int) -> None:
        self._share, self._hidden_TD = share, share.meeting.hidden_TD
        self._logits = logits_of(decoder, self._hidden_TD.unsqueeze(0), max_tokens)

    def hidden(self, inputs: StepInput) -> Tensor:
        self._share.compute(inputs.arrays)
        return self._hidden_TD[: inputs.num_tokens]

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._logits(places)


class SharedRowsStep(ComputedHere):
    """Implements DecoderStep on rank 0: `shared` has steps that are worth it, `alone` all
    others."""

    def __init__(
        self, alone: DecoderStep, shared: DecoderStep, is_worth: Callable[[StepArrays], bool]
    ) -> None:
        self._alone, self._shared, self._is_worth = alone, shared, is_worth
        self._last = alone

    def hidden(self, inputs: StepInput) -> Tensor:
        self._last = self._shared if self._is_worth(inputs.arrays) else self._alone
        return self._last.hidden(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._last.logits(hidden_TD, places)


class RowLead:
    """Implements Lead: rank 0 makes all logits itself."""

    def __init__(self, team: Lead) -> None:
        self._team = team
        self.recover = team.recover

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        self._team.run_step(inputs, ())

    def compute_logits(self, places: Sequence[int]) -> None:
        pass
