"""BlockPool: every KV block of a device, by number. Who holds it, what it contains, who goes next.

A block is in exactly one of three states:

    free      held by nobody, content worthless
    used      held by one or more requests
    cached    held by nobody, content known by its hash; evicted, oldest first, when none is free

Called by KVCacheManager only. Knows nothing of requests or tokens.

Source: reference counts plus a hash table over an eviction list, as in vLLM v1 (Apache-2.0).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable

from novacron.records.block import BlockHash


class BlockPool:
    """Bookkeeping for `num_blocks` blocks. Every operation costs O(1) a block."""

    def __init__(self, num_blocks: int) -> None:
        assert num_blocks > 0
        self.num_blocks = num_blocks
        self._num_holders = [0] * num_blocks
        self._hash_of: list[BlockHash | None] = [None] * num_blocks
        self._scope_of = [b""] * num_blocks  # of those with a hash
        self._block_of: dict[BlockHash, int] = {}
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # in eviction order

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: the free and the cached ones."""
        return len(self._free) + len(self._cached)

    def is_idle(self, block_id: int) -> bool:
        """Whether nobody holds the block, so that it counts as available."""
        return self._num_holders[block_id] == 0

    def lookup(self, block_hash: BlockHash) -> int | None:
        """The block with this content, if there is one. Changes nothing."""
        return self._block_of.get(block_hash)

    def lookup_all(self, hashes: Iterable[BlockHash]) -> list[int]:
        """The blocks with these contents, up to the first that there is none with."""
        block_of, found = self._block_of, []
        for block_hash in hashes:
            block_id = block_of.get(block_hash)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, each with one holder and no content; evicts cached ones at need.

        The caller has checked `num_available`.
        """
        assert count <= self.num_available
        taken = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block_id in taken:
            self._num_holders[block_id] = 1
        return taken

    def touch(self, block_ids: Iterable[int]) -> None:
        """Add a holder to blocks that `lookup` found."""
        for block_id in block_ids:
            if self._num_holders[block_id] == 0:
                del self._cached[block_id]
            self._num_holders[block_id] += 1

    def free(self, block_ids: Iterable[int]) -> None:
        """Take a holder from each block. Of those left without one, the first is evicted first."""
        for block_id in block_ids:
            assert self._num_holders[block_id] > 0, (
                f"block {block_id} is freed more often than held"
            )
            self._num_holders[block_id] -= 1
            if self._num_holders[block_id] == 0:
                self._put_back(block_id)

    def register(self, block_id: int, block_hash: BlockHash, scope: bytes = b"") -> None:
        """Make a held block findable by its content, unless another block already is. `scope` is
        whose it is."""
        assert self._num_holders[block_id] > 0
        assert self._hash_of[block_id] is None, f"block {block_id} already has content"
        if self._block_of.setdefault(block_hash, block_id) == block_id:
            self._hash_of[block_id] = block_hash
            self._scope_of[block_id] = scope

    def known_except(self, keep: Container[BlockHash]) -> list[int]:
        """Blocks that can be found by content, and not by one of these."""
        return [block_id for key, block_id in self._block_of.items() if key not in keep]

    def known_of(
        self, scope: bytes, keys: Container[BlockHash], keep: Container[BlockHash]
    ) -> list[int]:
        """Those of a scope, and those with one of these contents, without those to keep."""
        return [
            block_id
            for key, block_id in self._block_of.items()
            if (self._scope_of[block_id] == scope or key in keys) and key not in keep
        ]

    def forget(self, block_ids: Iterable[int]) -> int:
        """Nobody shall find these blocks by content again. Their holders keep them. Returns
        how many could be found before."""
        num_forgotten = 0
        for block_id in block_ids:
            block_hash = self._hash_of[block_id]
            if block_hash is None:
                continue
            del self._block_of[block_hash]
            self._hash_of[block_id] = None
            num_forgotten += 1
            if self._num_holders[block_id] == 0:
                del self._cached[block_id]
                self._free.append(block_id)
        return num_forgotten

    def check_integrity(self) -> None:
        """Recount everything the slow way. Raises AssertionError on a bug of ours."""
        held = {b for b, holders in enumerate(self._num_holders) if holders > 0}
        assert min(self._num_holders) >= 0, "negative reference count"
        assert len(self._free) + len(held) + len(self._cached) == self.num_blocks
        assert held.isdisjoint(self._free)
        assert held.isdisjoint(self._cached)
        assert len({*self._free, *self._cached, *held}) == self.num_blocks, "a block in two states"
        assert all(self._hash_of[b] is None for b in self._free), "free block with content"
        assert all(self._hash_of[b] is not None for b in self._cached), "cached block without"
        registered = {h: b for b, h in enumerate(self._hash_of) if h is not None}
        assert registered == self._block_of, "hash table and blocks disagree"

    def _put_back(self, block_id: int) -> None:
        if self._hash_of[block_id] is None:
            self._free.append(block_id)
        else:
            self._cached[block_id] = None

    def _evict(self) -> int:
        block_id, _ = self._cached.popitem(last=False)
        block_hash = self._hash_of[block_id]
        assert block_hash is not None
        del self._block_of[block_hash]
        self._hash_of[block_id] = None
        return block_id
