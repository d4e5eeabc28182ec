"""The requests that a rank holds, and the tensors of one step made from them.

Everything is put together in numpy and goes to the device in one copy.

Shapes: T tokens of the step, R rows (scheduled requests), B blocks of the longest row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novacron.kernels.metadata import AttentionMetadata, Row
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput


@dataclass(slots=True)
class HeldRequest:
    """A request as this rank knows it: its tokens so far, its blocks, and its embedding so far."""

    new: NewRequest
    prompt_token_ids: tuple[int, ...]
    output_token_ids: list[int]
    table_row: int
    block_ids: list[int] = field(default_factory=list)
    hidden_sum_D: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    def token_ids(self, start: int, stop: int) -> list[int] | tuple[int, ...]:
        """Tokens [start, stop) of prompt and output."""
        num_prompt = len(self.prompt_token_ids)
        if start >= num_prompt:
            return self.output_token_ids[start - num_prompt : stop - num_prompt]
        if stop <= num_prompt:
            return self.prompt_token_ids[start:stop]
        return [*self.prompt_token_ids[start:], *self.output_token_ids[: stop - num_prompt]]


@dataclass(frozen=True)
class StepPart:
    """One scheduled request of a step: which tokens of it, and whether its last known token is
    among them, so that the next one is to be chosen, and one after each draft."""

    request: HeldRequest
    scheduled: ScheduledTokens
    row: Row

    @property
    def reaches_end(self) -> bool:
        return self.scheduled.num_known_tokens == self.request.num_tokens

    @property
    def num_choices(self) -> int:
        """How many tokens are chosen after this part, if it reaches the end."""
        return 1 + len(self.scheduled.draft_token_ids)

    @property
    def chosen_after(self) -> range:
        """Places, among the T tokens of the step, of those after which one is chosen."""
        end = self.row.first_token + self.row.num_tokens
        return range(end - self.num_choices, end)


@dataclass(frozen=True)
class StepInput:
    """The tensors of a step. `parts` are in the order of the rows: single tokens first, those with
    the longest context foremost, then longer parts."""

    parts: tuple[StepPart, ...]
    token_ids_T: Tensor
    positions_T: Tensor
    attention: AttentionMetadata


class InputBatch:
    """All requests that have been introduced and not yet finished or preempted."""

    def __init__(
        self, *, max_num_seqs: int, max_model_len: int, block_size: int, device: torch.device
    ) -> None:
        self._block_size = block_size
        self._device = device
        self._requests: dict[str, HeldRequest] = {}
        self._block_tables = np.zeros((max_num_seqs, -(-max_model_len // block_size)), np.int64)
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))

    def update(self, step: SchedulerOutput) -> list[int]:
        """Apply what changed since the last step. Returns the blocks that the step will be the
        first of its request to write to."""
        for request_id in (*step.finished_ids, *step.preempted_ids):
            request = self._requests.pop(request_id, None)
            if request is not None:
                self._free_rows.append(request.table_row)
        for new in step.new_requests:
            self._requests[new.request_id] = HeldRequest(
                new=new,
                prompt_token_ids=new.token_ids[: new.num_prompt_tokens],
                output_token_ids=list(new.token_ids[new.num_prompt_tokens :]),
                table_row=self._free_rows.pop(),
            )
        fresh: list[int] = []
        for part in step.scheduled:
            if part.new_block_ids:
                fresh += self._add_blocks(self._requests[part.request_id], part)
        return fresh

    def _add_blocks(self, request: HeldRequest, part: ScheduledTokens) -> list[int]:
        held = len(request.block_ids)
        if held == 0:  # padding of the table must name a block of the request's own
            self._block_tables[request.table_row] = part.new_block_ids[0]
        request.block_ids += part.new_block_ids
        self._block_tables[request.table_row, held : len(request.block_ids)] = part.new_block_ids
        first_written = part.start // self._block_size
        return request.block_ids[max(held, first_written) :]

    def prepare(self, step: SchedulerOutput) -> StepInput:
        """The tensors for the parts of a step that `update` has seen."""
        ordered = sorted(step.scheduled, key=_by_kind_and_length)
        parts, first_token = [], 0
        for scheduled in ordered:
            row = Row(first_token, scheduled.start, scheduled.num_tokens)
            parts.append(StepPart(self._requests[scheduled.request_id], scheduled, row))
            first_token += scheduled.num_tokens
        rows = tuple(part.row for part in parts)
        lengths_R = np.array([row.length for row in rows], np.int64)
        tables_RB = self._block_tables[
            [part.request.table_row for part in parts],
            : -(-int(lengths_R.max()) // self._block_size),
        ]
        token_ids: list[int] = []
        for part in parts:
            token_ids += part.request.token_ids(part.row.start, part.scheduled.num_known_tokens)
            token_ids += part.scheduled.draft_token_ids
        counts_R = np.array([row.num_tokens for row in rows], np.int64)
        starts_R = lengths_R - counts_R
        firsts_R = np.array([row.first_token for row in rows], np.int64)
        positions_T = np.arange(first_token) + np.repeat(starts_R - firsts_R, counts_R)
        blocks_T = tables_RB[
            np.repeat(np.arange(len(rows)), counts_R), positions_T // self._block_size
        ]
        slots_T = blocks_T * self._block_size + positions_T % self._block_size
        tokens, positions, slots, lengths, tables = self._to_device(
            np.array(token_ids, np.int64), positions_T, slots_T, lengths_R, tables_RB
        )
        return StepInput(
            parts=tuple(parts),
            token_ids_T=tokens,
            positions_T=positions,
            attention=AttentionMetadata(
                rows=rows,
                num_decodes=sum(row.num_tokens == 1 for row in rows),
                block_size=self._block_size,
                block_tables_RB=tables,
                lengths_R=lengths,
                slots_T=slots,
            ),
        )

    def _to_device(self, *arrays: NDArray[np.int64]) -> list[Tensor]:
        """The arrays as tensors, moved in one copy."""
        packed = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
        if self._device.type == "cuda":
            packed = packed.pin_memory().to(self._device, non_blocking=True)
        pieces = torch.split_with_sizes(packed, [array.size for array in arrays])
        return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def _by_kind_and_length(part: ScheduledTokens) -> tuple[bool, int]:
    return part.num_tokens > 1, -part.start
