"""LendingGuard: a guarded tier whose records come into buffers of its own, which it lends.

A late call may still write to a buffer, so blocks cannot come straight to where they are wanted.
But they need no more than the one copy from there, with which their checksum is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.record import HEADER_BYTES, block_of
from novacron.kv_tiers.tier import Bytes, KVTier, Loan
from novacron.records.block import BlockHash


class LendingGuard(GuardedTier):
    """Implements LendsBlocks, too. For tiers with a deadline. `num_ready` buffers are made ready
    for the first calls, which then need not wait for the system to find memory."""

    def __init__(
        self, tier: KVTier, name: str, *, record_bytes: int, num_ready: int = 0, **guard: Any
    ) -> None:
        super().__init__(tier, name, **guard)
        assert self.deadline_s is not None
        self._record_bytes = record_bytes
        self.give_back_scratch([np.ones(record_bytes, np.uint8) for _ in range(num_ready)])

    def lend(self, keys: Sequence[BlockHash], headers: Bytes) -> Loan:
        """Raises as `get` does. The loan ends when `is_intact` is asked."""
        buffers = self.take_scratch(len(keys), self._record_bytes)
        found = self.get_into_scratch(keys, buffers)
        for header, record, is_there in zip(headers, buffers, found, strict=False):
            if is_there:
                header[:] = record[:HEADER_BYTES]

        def end() -> list[bool]:
            self.give_back_scratch(buffers)
            return found

        blocks = [
            block_of(record) if is_there else None
            for record, is_there in zip(buffers, found, strict=True)
        ]
        return Loan(blocks, end)
