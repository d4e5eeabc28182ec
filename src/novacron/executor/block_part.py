"""BlockPart: which part of every KV block one rank keeps in its tiers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class BlockPart:
    """`share` of what a block takes; the rest is on other hosts. Without a name: all of it."""

    name: str = ""
    share: float = 1.0

    def identity_in(self, kv_identity: str) -> str:
        """What equal parts agree in, of blocks that agree in `kv_identity`: whoever has the same
        part, in whatever tier, on whatever host, finds these and no others."""
        return f"{kv_identity}, {self.name}" if self.name else kv_identity


WHOLE: Final = BlockPart()
