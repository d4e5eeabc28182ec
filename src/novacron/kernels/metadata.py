"""What attention must know about one step: which tokens belong to whom and where their KV lies.

Built once per step by runner/input_batch.py and passed down; nothing here is ambient.

Shapes: T tokens of the step, R rows (one per scheduled request), B blocks of the longest row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from novacron.kernels.kv_format import LayerFormat


class KVLayer(NamedTuple):
    """The paged keys and values of one layer, each bytes [kv heads, blocks, bytes of a block], of
    which there may be more for the one than for the other.

    Heads come first so that the blocks of a row, gathered, are the [heads, tokens, head dim]
    operand that a batched matrix product wants, without a transposing copy.
    """

    key: Tensor
    value: Tensor
    format: LayerFormat
    block_size: int


class Row(NamedTuple):
    """One request's part of the step: positions [start, start + num_tokens), at most `length`.

    `first_token` is where the part begins among the T tokens of the step.
    """

    first_token: int
    start: int
    num_tokens: int

    @property
    def length(self) -> int:
        """Tokens in the cache once this step has written its own."""
        return self.start + self.num_tokens


@dataclass(frozen=True)
class AttentionMetadata:
    """The rows of one step. The first `num_decodes` have one token each, longest row first.

    `block_tables_RB` names each row's blocks in order; places past its end repeat one of the row's
    own blocks, so that what is read there by padding is the row's own. `slots_T` is where the KV of
    each token goes: block id * block size + offset. `rows_R3` are the rows as a tensor.

    Where ranks compute some tokens of the step each, `meet` is what they do once they have stored
    keys and values of so many, in blocks that all of them read.
    """

    rows: tuple[Row, ...]
    num_decodes: int
    block_size: int
    block_tables_RB: Tensor
    lengths_R: Tensor
    slots_T: Tensor
    rows_R3: Tensor
    meet: Callable[[int], None] | None = None
