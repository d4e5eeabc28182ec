"""BlockMemory: the device's blocks as bytes, as whoever moves them sees them."""

from __future__ import annotations

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

    def host_block(self, block_id: int) -> Bytes | None:
        """The block's own memory, if the host can read and write it; None: copies are needed."""
        ...

    def read_block(self, block_id: int, into: Bytes) -> None:
        """Copy all that the block holds."""
        ...

    def write_block(self, block_id: int, data: Bytes) -> None:
        """Replace all that the block holds."""
        ...

    def see_filled(self, block_id: int) -> None:
        """Its `host_block` has been filled with what a block may hold."""
        ...
