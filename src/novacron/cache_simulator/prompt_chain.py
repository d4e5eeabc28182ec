"""PromptChain: the blocks of a made-up prompt, by what it is put together from."""

from __future__ import annotations

import hashlib
from typing import Self

from novacron.records.block import BlockHash

_KEY_BYTES = 8


class PromptChain:
    """Grows by pieces of text, each a name and a length. Chains that start with the same pieces
    start with the same blocks, as far as these are full."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._state = hashlib.blake2b(digest_size=_KEY_BYTES)
        self.num_tokens = 0
        self.blocks: tuple[BlockHash, ...] = ()

    def copy(self) -> Self:
        """Another one that goes on from here."""
        other = type(self)(self._block_tokens)
        other._state, other.num_tokens = self._state.copy(), self.num_tokens
        other.blocks = self.blocks
        return other

    def add(self, name: str, num_tokens: int) -> Self:
        made: list[BlockHash] = []
        start = 0
        while start < num_tokens:
            room = self._block_tokens - self.num_tokens % self._block_tokens
            taken = min(room, num_tokens - start)
            self._state.update(f"{name}\x00{start}\x00{taken}\x01".encode())
            start += taken
            self.num_tokens += taken
            if taken == room:
                digest = bytearray(self._state.digest())
                digest[0] &= 0x7F  # a number that any reader of JSON can hold
                made.append(BlockHash(bytes(digest)))
        self.blocks += tuple(made)
        return self
