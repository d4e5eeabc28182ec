"""The requests that a rank holds, and the tensors of one step made from them.

On a CPU the tensors of every step are the beginnings of the same ones, those of the largest step,
so that a recorded computation finds them; to another device everything goes in one copy.

Shapes: T tokens of the step, R rows (scheduled requests), B blocks of the longest row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from novacron.kernels.metadata import AttentionMetadata, Row
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.step_arrays import StepArrays


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


class StepPart(NamedTuple):
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


class StepInput:
    """The tensors of a step, made when they are asked for; what they are made of holds until the
    next step is prepared, `parts` and counts for longer. `parts` are in the order of the rows:
    single tokens first, those with the longest context foremost, then longer parts. A rank that is
    given its steps has none."""

    def __init__(
        self,
        parts: tuple[StepPart, ...],
        arrays: StepArrays,
        block_size: int,
        to_device: Callable[[StepArrays], list[Tensor]],
        meet: Callable[[int], None] | None = None,
    ) -> None:
        self.parts = parts
        self.num_tokens, self.num_requests = len(arrays.token_ids_T), len(arrays.lengths_R)
        self.num_blocks = arrays.block_tables_RB.shape[1]
        self.arrays = arrays
        self._block_size = block_size
        self._to_device, self._meet = to_device, meet

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return self._to_device(self.arrays)

    @property
    def token_ids_T(self) -> Tensor:
        return self._tensors[0]

    @property
    def positions_T(self) -> Tensor:
        return self._tensors[1]

    @property
    def ending_parts(self) -> list[StepPart]:
        """Those after which tokens are chosen."""
        return [
            part for part in self.parts if part.reaches_end and part.request.new.pooling is None
        ]

    @property
    def attention(self) -> AttentionMetadata:
        _, _, slots, lengths, rows, tables = self._tensors
        all_rows = tuple(Row(*row) for row in self.arrays.rows_R3.tolist())
        return AttentionMetadata(
            rows=all_rows,
            num_decodes=sum(row.num_tokens == 1 for row in all_rows),
            block_size=self._block_size,
            block_tables_RB=tables,
            lengths_R=lengths,
            slots_T=slots,
            rows_R3=rows,
            meet=self._meet,
        )


class InputBatch:
    """All requests that have been introduced and not yet finished or preempted."""

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_num_tokens: int,
        max_model_len: int,
        block_size: int,
        device: torch.device,
        arrays: StepArrays | None = None,
        meet: Callable[[int], None] | None = None,
    ) -> None:
        """`arrays`, of StepArrays.shapes, are where the tensors of steps are to lie. `meet` is that
        of AttentionMetadata."""
        self.max_num_tokens, self.block_size = max_num_tokens, block_size
        self._meet = meet
        self._device = device
        self._requests: dict[str, HeldRequest] = {}
        shapes = StepArrays.shapes(
            max_num_seqs=max_num_seqs,
            max_num_tokens=max_num_tokens,
            max_model_len=max_model_len,
            block_size=block_size,
        )
        self._block_tables = np.zeros(shapes["block_tables_RB"], np.int64)
        self._arrays = arrays or StepArrays(
            **{name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        )
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))

    def for_pieces(self, meet: Callable[[int], None]) -> InputBatch:
        """One for steps of up to two pieces of each part of this one's steps."""
        num_seqs, num_blocks = self._block_tables.shape
        return InputBatch(
            max_num_seqs=2 * num_seqs,
            max_num_tokens=self.max_num_tokens,
            max_model_len=num_blocks * self.block_size,
            block_size=self.block_size,
            device=self._device,
            meet=meet,
        )

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

    def forget_requests(self) -> None:
        """All of them: who plans steps introduces them anew."""
        self._free_rows += [request.table_row for request in self._requests.values()]
        self._requests.clear()

    def append(self, request_id: str, token_ids: tuple[int, ...]) -> None:
        """A request has got these tokens."""
        self._requests[request_id].output_token_ids += token_ids

    def _add_blocks(self, request: HeldRequest, part: ScheduledTokens) -> list[int]:
        held = len(request.block_ids)
        if held == 0:  # padding of the table must name a block of the request's own
            self._block_tables[request.table_row] = part.new_block_ids[0]
        request.block_ids += part.new_block_ids
        self._block_tables[request.table_row, held : len(request.block_ids)] = part.new_block_ids
        first_written = part.start // self.block_size
        return request.block_ids[max(held, first_written) :]

    def prepare(self, step: SchedulerOutput) -> StepInput:
        """The tensors for the parts of a step that `update` has seen. They hold until the next
        step is prepared."""
        parts: list[StepPart] = []
        token_ids: list[int] = []
        table_rows: list[int] = []
        longest = first_token = 0
        for scheduled in sorted(step.scheduled, key=_by_kind_and_length):
            request = self._requests[scheduled.request_id]
            row = Row(first_token, scheduled.start, scheduled.num_tokens)
            parts.append(StepPart(request, scheduled, row))
            token_ids += request.token_ids(scheduled.start, scheduled.num_known_tokens)
            token_ids += scheduled.draft_token_ids
            table_rows.append(request.table_row)
            longest = max(longest, scheduled.start + scheduled.num_tokens)
            first_token += scheduled.num_tokens
        arrays = self._arrays.first(first_token, len(parts), -(-longest // self.block_size))
        arrays.token_ids_T[:] = token_ids
        arrays.rows_R3[:] = [part.row for part in parts]
        arrays.block_tables_RB[:] = self._block_tables[
            table_rows, : arrays.block_tables_RB.shape[1]
        ]
        arrays.fill_in_places(self.block_size)
        return StepInput(tuple(parts), arrays, self.block_size, self._to_device, self._meet)

    def given_input(self, num_tokens: int, num_requests: int, num_blocks: int) -> StepInput:
        """The tensors of a step that another process has prepared in the same arrays."""
        arrays = self._arrays.first(num_tokens, num_requests, num_blocks)
        return StepInput((), arrays, self.block_size, self._to_device, self._meet)

    def copied_input(
        self, source: StepArrays, num_tokens: int, num_requests: int, num_blocks: int
    ) -> StepInput:
        """The same, of arrays that lie elsewhere and may change again."""
        self._arrays.first(num_tokens, num_requests, num_blocks).copy_from(source)
        return self.given_input(num_tokens, num_requests, num_blocks)

    def largest_input(self) -> StepInput:
        """The tensors of the largest step, without any request. On a CPU, those of each step lie in
        the same memory."""
        return StepInput((), self._arrays, self.block_size, self._to_device, self._meet)

    def _to_device(self, arrays: StepArrays) -> list[Tensor]:
        """The arrays as tensors: themselves on a CPU, else moved in one copy."""
        if self._device.type == "cpu":
            return [torch.from_numpy(array) for array in arrays]
        packed = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
        if self._device.type == "cuda":
            packed = packed.pin_memory().to(self._device, non_blocking=True)
        pieces = torch.split_with_sizes(packed, [array.size for array in arrays])
        return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def _by_kind_and_length(part: ScheduledTokens) -> tuple[bool, int]:
    return part.num_tokens > 1, -part.start
