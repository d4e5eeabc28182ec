"""BlockMemory: the device's blocks as bytes, as whoever moves them sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from novacron.kv_tiers.tier import Bytes


class BlockMemory(Protocol):
    """Blocks by number. Calls come from any thread."""

    @property
    def block_bytes(self) -> int: ...

    @property
    def block_size(self) -> int:
        """Tokens."""
        ...

    @property
    def host_blocks(self) -> Bytes | None:
        """[blocks][block_bytes], if the host can read and write there; None: copies are needed."""
        ...

    def read_block(self, block_id: int, into: Bytes) -> None:
        """Copy all that the block holds."""
        ...

    def write_block(self, block_id: int, data: Bytes) -> None:
        """Replace all that the block holds."""
        ...

    def see_filled(self, block_ids: Iterable[int]) -> None:
        """These of the `host_blocks` have been filled with what a block may hold."""
        ...
