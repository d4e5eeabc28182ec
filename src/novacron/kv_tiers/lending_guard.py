"""LendingGuard: a guarded tier whose records come into buffers of its own, which it lends.

A late call may still write to a buffer, so blocks cannot come straight to where they are wanted.
But they need no more than the one copy from there, with which their checksum is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.tier import Bytes, KVTier, Loan, Rows
from novacron.records.block import BlockHash


class LendingGuard(GuardedTier):
    """Implements LendsBlocks, too. For tiers with a deadline. Buffers for `num_ready` calls, of
    `at_once` records each, are made ready: these need not wait for the system to find memory."""

    def __init__(
        self,
        tier: KVTier,
        name: str,
        *,
        record_bytes: int,
        num_ready: int = 0,
        at_once: int = 0,
        **guard: Any,
    ) -> None:
        super().__init__(tier, name, **guard)
        assert self.deadline_s is not None
        self._record_bytes = record_bytes
        self._at_once = at_once
        self._tables = [np.ones((at_once, record_bytes), np.uint8) for _ in range(num_ready)]

    def lend(self, keys: Sequence[BlockHash]) -> Loan:
        """Raises as `get` does. The loan ends when `is_intact` is asked."""
        table = self._take_table(len(keys))
        found = self.get_into_scratch(keys, list(table[: len(keys)]))

        def end() -> list[bool]:
            self._tables.append(table)
            return found

        return Loan(Rows(table, np.where(found, np.arange(len(keys)), -1)), end)

    def _take_table(self, num_rows: int) -> Bytes:
        if num_rows <= self._at_once:
            with contextlib.suppress(IndexError):
                return self._tables.pop()
        return np.empty((max(num_rows, self._at_once), self._record_bytes), np.uint8)
